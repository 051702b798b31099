//! How a response travels from a forked process to its loop: as messages of a `SOCK_SEQPACKET` socket, whose boundaries
//! are those of the messages; files travel as descriptors beside them. Writes and reads messages; sends and receives
//! none.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::site::{Body, BodyStream, FileRange, Passage, Payload, Piece, Response};
use crate::sys::version::Version;

/// What a message says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // most messages are the large one
pub(super) enum Message {
    /// The response. Where its body is a stream, the stream here is empty, and chunks follow.
    Response(Response),
    /// The next chunk of its stream.
    Chunk(Bytes),
    /// The stream is at its end.
    End,
    /// The stream ended with an error.
    Broken(String),
}

/// Words that messages begin with.
mod tag {
    pub(super) const RESPONSE: u64 = 1;
    pub(super) const CHUNK: u64 = 2;
    pub(super) const END: u64 = 3;
    pub(super) const BROKEN: u64 = 4;
}

/// Words that bodies and pieces begin with.
mod kind {
    pub(super) const PIECES: u64 = 1;
    pub(super) const STREAM: u64 = 2;
    pub(super) const BYTES: u64 = 3;
    pub(super) const SENDFILE: u64 = 4;
    pub(super) const COPIED: u64 = 5;
}

/// A response as a message, the files that go with it, and the stream that follows it.
pub(super) struct Encoded {
    pub message: Vec<u8>,
    pub files: Vec<Arc<File>>,
    pub stream: Option<BodyStream>,
}

/// Writes a response.
pub(super) fn encode(response: Response) -> Encoded {
    let (parts, body) = response.into_parts();
    let (fields, payload) = body.into_parts();
    let mut out = Writer(Vec::with_capacity(512));
    out.number(tag::RESPONSE);
    out.number(parts.status.as_u16().into());
    out.number(parts.headers.len() as u64);
    for (name, value) in &parts.headers {
        out.bytes(name.as_str().as_bytes());
        out.bytes(value.as_bytes());
    }
    out.bytes(&fields);
    let mut files = Vec::new();
    let stream = match payload {
        Payload::Bytes(bytes) => out.pieces(vec![Piece::Bytes(bytes)], &mut files),
        Payload::File(part) => out.pieces(vec![Piece::File(part)], &mut files),
        Payload::Pieces(pieces) => out.pieces(pieces, &mut files),
        Payload::Stream(stream) => {
            out.number(kind::STREAM);
            Some(stream)
        }
    };
    Encoded { message: out.0, files, stream }
}

/// Writes a chunk of a stream, its end or its error.
pub(super) fn encode_item(item: Result<Option<&[u8]>, &str>) -> Vec<u8> {
    let mut out = Writer(Vec::new());
    match item {
        Ok(Some(chunk)) => {
            out.number(tag::CHUNK);
            out.bytes(chunk);
        }
        Ok(None) => out.number(tag::END),
        Err(why) => {
            out.number(tag::BROKEN);
            out.bytes(why.as_bytes());
        }
    }
    out.0
}

/// Reads a message and the files that came with it; nothing where it is none of ours.
pub(super) fn decode(message: &[u8], files: Vec<OwnedFd>) -> Option<Message> {
    let mut input = Reader(message);
    let read = match input.number()? {
        tag::RESPONSE => Message::Response(decode_response(&mut input, files)?),
        tag::CHUNK => Message::Chunk(Bytes::copy_from_slice(input.bytes()?)),
        tag::END => Message::End,
        tag::BROKEN => Message::Broken(String::from_utf8_lossy(input.bytes()?).into_owned()),
        _ => return None,
    };
    input.0.is_empty().then_some(read)
}

fn decode_response(input: &mut Reader<'_>, files: Vec<OwnedFd>) -> Option<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(u16::try_from(input.number()?).ok()?).ok()?;
    for _ in 0..input.number()? {
        let name = HeaderName::from_bytes(input.bytes()?).ok()?;
        response.headers_mut().try_append(name, HeaderValue::from_bytes(input.bytes()?).ok()?).ok()?;
    }
    let fields = Bytes::copy_from_slice(input.bytes()?);
    let files: Vec<_> = files.into_iter().map(|file| Arc::new(File::from(file))).collect();
    let body = match input.number()? {
        kind::PIECES => Body::from(input.pieces(&files)?),
        kind::STREAM => Body::stream(std::iter::empty()),
        _ => return None,
    };
    *response.body_mut() = body.with_fields(fields);
    Some(response)
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn pieces(&mut self, pieces: Vec<Piece>, files: &mut Vec<Arc<File>>) -> Option<BodyStream> {
        self.number(kind::PIECES);
        self.number(pieces.len() as u64);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    self.number(kind::BYTES);
                    self.bytes(&bytes);
                }
                Piece::File(part) => self.file(part, files),
            }
        }
        None
    }

    fn file(&mut self, part: FileRange, files: &mut Vec<Arc<File>>) {
        self.number(match part.passage {
            Passage::Sendfile => kind::SENDFILE,
            Passage::Copied => kind::COPIED,
        });
        let known = files.iter().position(|file| file.as_raw_fd() == part.file.as_raw_fd());
        self.number(known.unwrap_or(files.len()) as u64);
        self.number(part.range.start);
        self.number(part.range.end);
        let version = part.version.map(Version::to_words);
        self.number(u64::from(version.is_some()));
        version.into_iter().flatten().for_each(|word| self.number(word));
        if known.is_none() {
            files.push(part.file);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn pieces(&mut self, files: &[Arc<File>]) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        for _ in 0..self.number()? {
            pieces.push(match self.number()? {
                kind::BYTES => Piece::Bytes(Bytes::copy_from_slice(self.bytes()?)),
                kind::SENDFILE => Piece::File(self.file(files, Passage::Sendfile)?),
                kind::COPIED => Piece::File(self.file(files, Passage::Copied)?),
                _ => return None,
            });
        }
        Some(pieces)
    }

    fn file(&mut self, files: &[Arc<File>], passage: Passage) -> Option<FileRange> {
        let file = Arc::clone(files.get(usize::try_from(self.number()?).ok()?)?);
        let range = self.number()?..self.number()?;
        let version = match self.number()? {
            0 => None,
            _ => Some(Version::from_words(self.words()?)),
        };
        Some(FileRange { file, range, version, passage })
    }

    fn words<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.number()?;
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Arc::new(file)
    }

    /// There and back, with descriptors of its own.
    fn travel(response: Response) -> Response {
        let Encoded { message, files, .. } = encode(response);
        let files = files.iter().map(|file| file.try_clone().unwrap().into()).collect();
        match decode(&message, files) {
            Some(Message::Response(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    fn shown(response: Response) -> String {
        let (parts, body) = response.into_parts();
        let (fields, payload) = body.into_parts();
        let payload = match payload {
            Payload::Pieces(pieces) => pieces.iter().map(piece).collect::<Vec<_>>().join(" + "),
            Payload::Stream(_) => "stream".to_owned(),
            Payload::Bytes(_) | Payload::File(_) => unreachable!("travels as pieces"),
        };
        format!("{} {:?} {fields:?} {payload}", parts.status, parts.headers)
    }

    fn piece(piece: &Piece) -> String {
        match piece {
            Piece::Bytes(bytes) => format!("{bytes:?}"),
            Piece::File(part) => {
                let mut content = vec![0; usize::try_from(part.len()).unwrap()];
                part.file.read_exact_at(&mut content, part.range.start).unwrap();
                format!("{:?} {:?} {}", part.passage, String::from_utf8_lossy(&content), part.is_unchanged())
            }
        }
    }

    #[test]
    fn status_fields_and_bytes_arrive_as_they_were() {
        let mut response = Response::new(Body::from("hello").with_fields(Bytes::from_static(b"etag: \"1\"\r\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        for value in ["a", "b"] {
            response.headers_mut().append("x-a", HeaderValue::from_static(value));
        }
        let expected = r#"404 Not Found {"x-a": "a", "x-a": "b"} b"etag: \"1\"\r\n" b"hello""#;
        assert_eq!(shown(travel(response)), expected);
    }

    #[test]
    fn pieces_and_files_arrive_in_order_and_each_file_once() {
        let both = file(b"0123456789");
        let version = Version::of(&both).ok();
        let part = |range, passage| FileRange { file: Arc::clone(&both), range, version, passage };
        let pieces = || {
            vec![
                Piece::File(part(2..4, Passage::Copied)),
                Piece::Bytes(Bytes::from_static(b"--")),
                Piece::File(part(7..10, Passage::Sendfile)),
            ]
        };
        assert_eq!(encode(Response::new(pieces().into())).files.len(), 1);
        let expected = r#"200 OK {} b"" Copied "23" true + b"--" + Sendfile "789" true"#;
        assert_eq!(shown(travel(Response::new(pieces().into()))), expected);
    }

    #[test]
    fn a_stream_stays_behind_and_its_items_follow() {
        let mut encoded = encode(Response::new(Body::stream(std::iter::once(Ok(Bytes::from_static(b"x"))))));
        assert!(encoded.stream.as_mut().is_some_and(|stream| stream.next_chunk().is_some()));
        assert_eq!(shown(travel(Response::new(Body::stream(std::iter::empty())))), "200 OK {} b\"\" stream");
        for (item, expected) in
            [(Ok(Some(&b"ab"[..])), "Chunk(b\"ab\")"), (Ok(None), "End"), (Err("no more"), "Broken(\"no more\")")]
        {
            assert_eq!(format!("{:?}", decode(&encode_item(item), Vec::new()).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_cut_off_or_garbled_is_no_message_and_never_panics() {
        let mut response = Response::new(Body::file(file(b"0123456789"), 0..10));
        response.headers_mut().append("x-a", HeaderValue::from_static("a"));
        let message = encode(response).message;
        for length in 0..message.len() {
            assert!(decode(&message[..length], Vec::new()).is_none(), "{length}");
        }
        assert!(decode(&message, Vec::new()).is_none(), "the file is missing");
        assert!(decode(&[message.as_slice(), b"x"].concat(), vec![file(b"").try_clone().unwrap().into()]).is_none());
        for place in 0..message.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut garbled = message.clone();
                garbled[place] = byte;
                drop(decode(&garbled, vec![file(b"").try_clone().unwrap().into()]));
            }
        }
    }
}
