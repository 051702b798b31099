//! What a worker tells its master through the pipe of reports: messages of fixed length, so that they never tear.

/// Something of a worker that its master must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It accepts connections.
    Ready,
    /// It has answered `maxRequests` requests: a successor is wanted. Until that one is ready it goes on.
    Spent,
    /// The handler of a request has run for longer than `requestTimeout`, and cannot be ended but with its process. The
    /// loop goes on; what else the worker does can be finished.
    Hung,
}

/// How long a report is.
pub(crate) const REPORT_BYTES: usize = 8;

impl Report {
    const ALL: [Self; 3] = [Self::Ready, Self::Spent, Self::Hung];

    /// As the worker `pid` writes it.
    pub fn write(self, pid: i32) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        bytes[..4].copy_from_slice(&pid.to_ne_bytes());
        bytes[4] = self as u8;
        bytes
    }

    /// Whose it is, and what it says.
    pub fn read(bytes: [u8; REPORT_BYTES]) -> Option<(i32, Self)> {
        let [a, b, c, d, kind, ..] = bytes;
        let report = Self::ALL.into_iter().find(|report| *report as u8 == kind)?;
        Some((i32::from_ne_bytes([a, b, c, d]), report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for report in Report::ALL {
            assert_eq!(Report::read(report.write(4711)), Some((4711, report)));
        }
        assert_eq!(Report::read([9; REPORT_BYTES]), None);
    }
}
