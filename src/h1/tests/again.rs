//! Requests that are written again, to be received elsewhere, are the same there.

use super::LIMITS;
use super::corpus::cases;
use super::replay::{Seen, SeenHead, whole};
use crate::h1::framing::Framing;
use crate::h1::{Event, Receiver, encode_request};

/// All requests of the corpus that may be written again, as they came and as they are written.
fn written_again() -> Vec<(Vec<u8>, Vec<u8>)> {
    cases().iter().flat_map(|case| requests(&case.bytes)).collect()
}

fn requests(mut input: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut receiver) = (Vec::new(), Receiver::new());
    let (mut start, mut head, mut body) = (input, None, Vec::new());
    while let Ok((used, event)) = receiver.receive(input, &LIMITS) {
        match event {
            Event::NeedMore => break,
            Event::Head(of) => head = Some(of),
            Event::Data(range) => body.extend_from_slice(&input[range]),
            Event::End { trailers } => {
                let head = head.take().unwrap();
                let came = start[..start.len() - input.len() + used].to_vec();
                let mut again = Vec::new();
                encode_request(&mut again, &head.method, &head.target, head.version, &head.headers, &body);
                if trailers.is_empty() && head.uri.authority().is_none() {
                    found.push((came, again));
                }
                (start, body) = (&input[used..], Vec::new());
            }
        }
        input = &input[used..];
    }
    found
}

/// Without what says how the body travels.
fn content(bytes: &[u8]) -> (Vec<SeenHead>, Vec<Vec<u8>>) {
    let (mut heads, mut bodies) = (Vec::new(), Vec::new());
    for seen in whole(bytes, &LIMITS).seen {
        match seen {
            Seen::Head(mut head) => {
                head.fields.retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
                head.framing = Framing::Empty;
                head.expect_continue = false;
                heads.push(*head);
            }
            Seen::Data(data) => bodies.push(data),
            Seen::End(trailers) => assert!(trailers.is_empty()),
            Seen::Error(error) => panic!("{error:?} in {}", bytes.escape_ascii()),
        }
    }
    (heads, bodies)
}

#[test]
fn a_request_written_again_is_the_same_request() {
    let all = written_again();
    assert!(all.len() >= 40, "{}", all.len());
    for (came, again) in all {
        assert_eq!(content(&came), content(&again), "{}", again.escape_ascii());
    }
}

#[test]
fn a_head_written_again_is_never_longer() {
    for (came, again) in written_again() {
        let length = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let came = &came[came.iter().position(|byte| !b"\r\n".contains(byte)).unwrap()..];
        assert!(length(&again) <= length(came), "{} from {}", again.escape_ascii(), came.escape_ascii());
    }
}
