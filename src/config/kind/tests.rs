use super::*;

/// What the text is read as and shown as again, or the whole refusal.
fn said<T>(kind: &Kind<T>, text: &str) -> Result<String, String> {
    match kind.read(text, Path::new("/base")) {
        Ok(value) => Ok(kind.show(&value)),
        Err(wrong) => Err(format!("{}; {}", wrong.problem, wrong.remedy)),
    }
}

fn refused<T>(kind: &Kind<T>, texts: &[&str]) {
    for text in texts {
        assert!(said(kind, text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn a_number_is_digits_within_its_range() {
    let kind = number::<u16>("N", 1, 1_000);
    assert_eq!(said(&kind, "1000"), Ok("1000".into()));
    assert_eq!(said(&kind, "007"), Ok("7".into()));
    assert_eq!(said(&kind, "1001"), Err("out of range; write a number from 1 to 1000".into()));
    refused(&kind, &["0", "", "-1", "+1", " 1", "1.5", "1_0", "0x1", "٣", "99999999999999999999999"]);
}

#[test]
fn a_type_too_small_for_the_range_refuses_instead_of_wrapping() {
    refused(&number::<u16>("N", 0, 1 << 20), &["65536"]);
}

#[test]
fn a_pool_of_fewer_than_two_is_told_what_to_say_instead() {
    for (kind, otherwise) in [
        (process_pool(1024), "forking = 1 for a new process for each request"),
        (thread_pool(1024), "threading = 1 for a new thread for each request"),
    ] {
        assert_eq!(kind.read("", Path::new("")), Ok(None));
        assert_eq!(kind.read("2", Path::new("")), Ok(Some(2)));
        assert_eq!(kind.read("1024", Path::new("")), Ok(Some(1024)));
        let remedy = format!("leave it out for a single worker, or say {otherwise}");
        for text in ["0", "1", "01"] {
            assert_eq!(said(&kind, text), Err(format!("a pool is two or more; {remedy}")));
        }
        for text in ["1025", "99999999999999999999"] {
            assert_eq!(said(&kind, text), Err("out of range; write a number from 2 to 1024".into()));
        }
        refused(&kind, &["many", "-1", "2.5", "auto"]);
    }
}

#[test]
fn a_number_of_processes_or_threads_is_told_the_pool_that_takes_it() {
    for (kind, pool) in [(forking(), "processPool"), (threading(), "threadPool")] {
        assert_eq!(said(&kind, "0"), Ok("0".into()));
        assert_eq!(said(&kind, "1"), Ok("1".into()));
        assert_eq!(said(&kind, "4"), Err(format!("neither 0 nor 1; say {pool} = 4, or write 1")));
        for text in ["yes", "-1", "01", "00"] {
            assert_eq!(said(&kind, text), Err("neither 0 nor 1; write 0 or 1".into()));
        }
    }
}

#[test]
fn a_size_counts_in_powers_of_1024() {
    let kind = size::<u64>(0, 1 << 40);
    for (text, bytes) in [("0", 0), ("1", 1), ("8k", 8192), ("16m", 16 << 20), ("2g", 2 << 30), ("1000", 1000)] {
        assert_eq!(kind.read(text, Path::new("")), Ok(bytes));
        assert_eq!(kind.show(&bytes), text);
    }
    refused(&kind, &["", "k", "16mb", "16M", "1.5m", "-1", "16 m", "99999999999999999999g", "18446744073709551615k"]);
    assert_eq!(said(&kind, "16mb"), Err("no unit \"mb\"; write 16m".into()));
    assert_eq!(said(&kind, "16 M"), Err("no unit \" M\"; write 16m".into()));
    assert_eq!(said(&kind, "16q"), Err("no unit \"q\"; write 16 with k, m, g or bare bytes".into()));
    assert_eq!(
        said(&kind, "1.5m"),
        Err("not a whole number; write it with a smaller unit (k, m, g or bare bytes)".into())
    );
}

#[test]
fn a_duration_needs_its_unit() {
    let kind = duration(100, 24 * 3_600_000);
    for (text, millis) in [("250ms", 250), ("10s", 10_000), ("75s", 75_000), ("2m", 120_000), ("1h", 3_600_000)] {
        assert_eq!(kind.read(text, Path::new("")), Ok(Duration::from_millis(millis)));
        assert_eq!(said(&kind, text), Ok(text.into()));
    }
    assert_eq!(said(&kind, "10"), Err("the unit is missing; say 10s".into()));
    assert_eq!(said(&kind, "60s"), Ok("60s".into()));
    refused(&kind, &["", "0", "0s", "99ms", "25h", "s", "10 s", "1d", "1.5s", "-1s", "99999999999999999999h"]);
}

#[test]
fn zero_is_a_duration_only_where_it_means_something() {
    let kind = duration_or_zero(100, 1_000);
    assert_eq!(said(&kind, "0"), Ok("0".into()));
    assert_eq!(said(&kind, "0s"), Ok("0".into()));
    assert_eq!(said(&kind, "50ms"), Err("out of range; write a time from 100ms to 1s, or 0".into()));
}

#[test]
fn every_duration_and_size_is_read_back_as_shown() {
    let (time, bytes) = (duration_or_zero(0, u64::MAX), size::<u64>(0, u64::MAX));
    let mut n = 1_u64;
    for _ in 0..2_000 {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = n >> (n % 60);
        let value = Duration::from_millis(number);
        assert_eq!(time.read(&time.show(&value), Path::new("")), Ok(value));
        assert_eq!(bytes.read(&bytes.show(&number), Path::new("")), Ok(number));
    }
}

#[test]
fn a_switch_is_0_or_1() {
    assert_eq!(said(&switch(), "1"), Ok("1".into()));
    assert_eq!(said(&switch(), "0"), Ok("0".into()));
    refused(&switch(), &["", "yes", "true", "2", "01"]);
}

#[test]
fn permissions_are_octal() {
    assert_eq!(permissions().read("0660", Path::new("")), Ok(0o660));
    assert_eq!(said(&permissions(), "660"), Ok("0660".into()));
    refused(&permissions(), &["", "0680", "1777", "00660", "rw", "+660", "0o660"]);
}

#[test]
fn a_host_comes_without_a_port() {
    for host_name in ["localhost", "192.168.0.23", "::1", "www.example.org"] {
        assert_eq!(said(&host(), host_name), Ok(host_name.into()));
    }
    refused(&host(), &["", "localhost:80", "http://x", "a b"]);
    assert_eq!(said(&host(), "[::1]"), Err("an address in brackets; write ::1".into()));
    assert_eq!(said(&host(), "*"), Err("not an address; write :: or 0.0.0.0 for all of them".into()));
}

#[test]
fn paths_are_relative_to_where_they_were_said() {
    assert_eq!(said(&socket_file(), "x.sock"), Ok("/base/x.sock".into()));
    assert_eq!(said(&socket_file(), "/run/x.sock"), Ok("/run/x.sock".into()));
    assert_eq!(said(&log_target(), "a/b.log"), Ok("/base/a/b.log".into()));
}

#[test]
fn a_socket_path_fits_its_address() {
    let fits = format!("/{}", "x".repeat(106));
    assert_eq!(said(&socket_file(), &fits), Ok(fits.clone()));
    refused(&socket_file(), &[&format!("{fits}x")]);
}

#[test]
fn index_names_are_names_not_paths() {
    assert_eq!(said(&file_names(), "index.html  index.htm"), Ok("index.html index.htm".into()));
    refused(&file_names(), &["", "  ", "a/b", "..", "index.html ."]);
}

#[test]
fn a_path_within_stays_within() {
    assert_eq!(said(&path_within(), "app/index.html"), Ok("app/index.html".into()));
    assert_eq!(path_within().read("", Path::new("")), Ok(None));
    refused(&path_within(), &["/index.html", "../x", "a/../x", "a//b", "./x", "x/", "a/."]);
}

#[test]
fn a_field_value_is_one_line_of_ascii() {
    assert_eq!(said(&field_value(), "public, max-age=60"), Ok("public, max-age=60".into()));
    assert_eq!(field_value().read("", Path::new("")), Ok(None));
    refused(&field_value(), &["a\r\nb", "a\tb", "\u{e4}", "\0"]);
}

#[test]
fn choices_are_read_by_their_names_alone() {
    for text in ["stdout", "stderr", "off"] {
        assert_eq!(said(&log_target(), text), Ok(text.into()));
    }
    for text in ["error", "warn", "info", "debug", "trace"] {
        assert_eq!(said(&level(), text), Ok(text.into()));
    }
    for text in ["combined", "json"] {
        assert_eq!(said(&access_format(), text), Ok(text.into()));
    }
    refused(&level(), &["", "off", "INFO", "loud"]);
    refused(&access_format(), &["", "common"]);
}

#[test]
fn a_health_path_is_the_path_of_a_url() {
    assert_eq!(said(&url_path(), "/up?full=1"), Ok("/up?full=1".into()));
    assert_eq!(said(&url_path(), ""), Ok(String::new()));
    refused(&url_path(), &["up", "http://localhost/up", "/a b", "/a#b", "/ä", "/a\r\nX: y"]);
}

#[test]
fn an_account_is_a_name_or_a_number() {
    assert_eq!(said(&account(), "www-data"), Ok("www-data".into()));
    assert_eq!(said(&account(), "33"), Ok("33".into()));
    refused(&account(), &["www data", "www:data", "a\0b"]);
}

#[test]
fn permissions_may_be_none_where_that_means_something() {
    assert_eq!(said(&optional_permissions(), "27"), Ok("0027".into()));
    assert_eq!(said(&optional_permissions(), ""), Ok(String::new()));
    refused(&optional_permissions(), &["0999", "01777", "rw"]);
}
