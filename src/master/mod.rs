//! The master: supervises the workers, serves nobody.
