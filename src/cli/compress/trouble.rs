//! What went wrong with one file, for the person who can do something about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What failed: operation, object, cause, remedy. The rest goes on.
#[derive(Debug)]
pub(super) struct Trouble {
    operation: &'static str,
    path: PathBuf,
    cause: String,
    remedy: &'static str,
}

impl Trouble {
    pub(super) fn new(operation: &'static str, path: &Path, cause: &io::Error) -> Self {
        Self { operation, path: path.to_owned(), cause: cause.to_string(), remedy: remedy(cause.kind()) }
    }

    /// Something that is no file stands at the name of a neighbour.
    pub(super) fn taken(path: &Path) -> Self {
        let cause = "something that is no regular file has that name".to_owned();
        Self { operation: "make", path: path.to_owned(), cause, remedy: "rename or remove that, then run again" }
    }

    /// A file is being written to.
    pub(super) fn restless(path: &Path) -> Self {
        let cause = "it changed twice while it was read".to_owned();
        Self { operation: "compress", path: path.to_owned(), cause, remedy: "run again when it is complete" }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, path, cause, remedy } = self;
        write!(f, "regrow: cannot {operation} {path:?}: {cause}; {remedy}")
    }
}

fn remedy(cause: ErrorKind) -> &'static str {
    match cause {
        ErrorKind::PermissionDenied => "give this user the right, or run as one who has it",
        ErrorKind::NotFound => "where it was meant to go all is well; otherwise put it back and run again",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, then run again",
        ErrorKind::FileTooLarge => "raise the limit (ulimit -f), then run again",
        ErrorKind::ReadOnlyFilesystem => "mount it writable, or compress the folder where it is written",
        _ => "see to that, then run again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_operation_object_cause_and_remedy_and_cannot_drive_the_terminal() {
        let trouble = Trouble::new("read", Path::new("a/\x1b[2J.js"), &ErrorKind::PermissionDenied.into());
        assert_eq!(
            trouble.to_string(),
            "regrow: cannot read \"a/\\u{1b}[2J.js\": permission denied; \
             give this user the right, or run as one who has it"
        );
    }
}
