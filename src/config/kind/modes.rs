//! The kinds of values that choose a mode; whoever meant another mode is told its option.

use super::{Kind, Shape, digits, number, switch};
use crate::config::Wrong;

/// The size of a pool of processes, two or more; none is no pool.
pub(crate) const fn process_pool(max: u64) -> Kind<Option<u32>> {
    Kind {
        shape: number::<u32>("N", 2, max).shape,
        read: |shape, text, _| read_pool(shape, text, "forking = 1 for a new process for each request"),
        show: |pool| pool.map(|n| n.to_string()).unwrap_or_default(),
    }
}

/// The size of a pool of threads, two or more; none is no pool.
pub(crate) const fn thread_pool(max: u64) -> Kind<Option<u32>> {
    Kind {
        read: |shape, text, _| read_pool(shape, text, "threading = 1 for a new thread for each request"),
        ..process_pool(max)
    }
}

fn read_pool(shape: &Shape, text: &str, otherwise: &str) -> Result<Option<u32>, Wrong> {
    if text.is_empty() {
        return Ok(None);
    }
    match digits(shape, text)? {
        0 | 1 => {
            let remedy = format!("leave it out for a single worker, or say {otherwise}");
            Err(Wrong::new("a pool is two or more", remedy))
        }
        number => shape.within(number).map(Some),
    }
}

/// 1 where each request has a process of its own.
pub(crate) const fn forking() -> Kind<bool> {
    Kind { read: |shape, text, _| read_switch(shape, text, "processPool"), ..switch() }
}

/// 1 where each request has a thread of its own.
pub(crate) const fn threading() -> Kind<bool> {
    Kind { read: |shape, text, _| read_switch(shape, text, "threadPool"), ..switch() }
}

fn read_switch(shape: &Shape, text: &str, pool: &str) -> Result<bool, Wrong> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ if digits(shape, text).is_ok_and(|number| number > 1) => {
            Err(Wrong::new("neither 0 nor 1", format!("say {pool} = {text}, or write 1")))
        }
        _ => Err(shape.refuse("neither 0 nor 1")),
    }
}
