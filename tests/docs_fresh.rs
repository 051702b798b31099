//! What the README repeats of the program is what the program says.

use std::process::Command;

#[test]
fn the_readme_lists_the_options_that_there_are() {
    let printed = Command::new(env!("CARGO_BIN_EXE_regrow")).args(["options", "--markdown"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let readme = include_str!("../README.md");
    let (_, table) = readme.split_once("<!-- options begin").unwrap();
    let (table, _) = table.split_once("<!-- options end -->").unwrap();
    let (_, table) = table.split_once("-->").unwrap();
    assert!(table.trim() == printed.trim(), "the README's table of options is old; run scripts/check --fix");
}

#[test]
fn the_readme_shows_the_example_that_is_compiled() {
    let code: String = include_str!("../examples/hello.rs").lines().skip(2).flat_map(|line| [line, "\n"]).collect();
    assert!(include_str!("../README.md").contains(&format!("```rust\n{code}```")), "examples/hello.rs has changed");
}
