//! A site that fails as the tests wish: `FAULTY_START` says how building it goes wrong, in all workers or, with
//! `FAULTY_SLOT`, in one; where a file `fault` lies in the folder it runs in, that says it instead. The paths below say how answering does.

use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use regrow::{Identity, Request, Response, serve_app};

fn main() -> ExitCode {
    if std::env::var("FAULTY_START").is_ok_and(|how| how == "thread") {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    serve_app(|worker| {
        fail_to_build(worker)?;
        let worker = *worker;
        Ok(move |request: Request| answer(&worker, &request))
    })
}

fn fail_to_build(worker: &Identity) -> Result<(), io::Error> {
    let slot = std::env::var("FAULTY_SLOT").ok().and_then(|slot| slot.parse().ok());
    let mine = slot.is_none_or(|slot: u32| slot == worker.worker);
    let fault = || std::fs::read_to_string("fault").ok();
    match fault().or_else(|| std::env::var("FAULTY_START").ok()).as_deref() {
        Some("wait") if mine => {
            while fault().is_some() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
        Some("error") if mine => Err(io::Error::other("the database is asleep")),
        Some("panic") if mine => panic!("no such table"),
        Some("exit") if mine => std::process::exit(7),
        Some("hang") if mine => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        Some("keep a thread") if mine => {
            std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn answer(worker: &Identity, request: &Request) -> Response {
    let path = request.uri().path();
    let number = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    match path.split('/').nth(1) {
        Some("sleep") => {
            eprintln!("sleeping in {worker}");
            std::thread::sleep(Duration::from_millis(number));
        }
        Some("exit") => std::process::exit(i32::try_from(number).unwrap_or(1)),
        Some("abort") => std::process::abort(),
        Some("panic") => panic!("a handler's mistake"),
        Some("orphan") => leave_an_orphan(),
        Some(_) | None => {}
    }
    Response::new(format!("{worker}\n").into())
}

/// Its parent is gone at once; it takes a second more.
fn leave_an_orphan() {
    let started = Command::new("sh").args(["-c", "sleep 1 &"]).status();
    assert!(started.is_ok_and(|status| status.success()), "sh must run");
}
