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

#[test]
fn the_readme_shows_lines_of_the_samples_that_are_run() {
    let readme = include_str!("../README.md");
    let behind = section(readme, "Behind another server");
    let machines = section(readme, "Several machines");
    for (section, language, sample) in [
        (behind, "ini", include_str!("../examples/behind/site.ini")),
        (behind, "nginx", include_str!("../examples/behind/nginx.conf")),
        (behind, "apache", include_str!("../examples/behind/apache.conf")),
        (behind, "haproxy", include_str!("../examples/behind/haproxy.cfg")),
        (machines, "ini", include_str!("../examples/cluster/site.ini")),
        (machines, "haproxy", include_str!("../examples/cluster/haproxy.cfg")),
    ] {
        let (_, block) = section.split_once(&format!("```{language}\n")).expect("a block");
        let (block, _) = block.split_once("```").expect("its end");
        let mut lines = sample.lines();
        for shown in block.lines() {
            assert!(lines.any(|line| line == shown), "{language}: not in the sample, or not there in it: {shown}");
        }
    }
}

fn section<'a>(readme: &'a str, name: &str) -> &'a str {
    let (_, section) = readme.split_once(&format!("\n## {name}\n")).expect("a section");
    section.split_once("\n## ").map_or(section, |(section, _)| section)
}
