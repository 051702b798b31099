//! The master: supervises the workers, serves nobody.

mod children;
mod machine;
