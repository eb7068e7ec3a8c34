//! The manual is whole: each flag that a command takes is in it.

use std::process::Command;

fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
    let output = program.args([command, "--help"]).output().expect("the program starts");
    String::from_utf8(output.stdout).expect("text")
}

/// The flags that a command's help lists, each at the beginning of a line.
fn flags(command: &str) -> Vec<String> {
    let help = help(command);
    let flag = |line: &str| {
        let from = line.trim_start().strip_prefix("-h, ").unwrap_or_else(|| line.trim_start());
        let name: String =
            from.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
        (name.starts_with("--") && name != "--help").then_some(name)
    };
    help.lines().filter_map(flag).collect()
}

#[test]
fn the_manual_has_every_flag_of_every_command() {
    let manual = include_str!("../../docs/planning.md");
    let mut missing = Vec::new();
    for command in ["run", "find-max", "sweep", "plan", "compare", "floor", "selftest", "worker"] {
        let flags = flags(command);
        assert!(flags.len() > 1, "{command} --help lists {flags:?}");
        let is_told = |flag: &&String| {
            let mut after = manual
                .match_indices(flag.as_str())
                .map(|(at, found)| manual[at + found.len()..].chars().next());
            after.any(|next| next.is_none_or(|next| next != '-' && !next.is_ascii_lowercase()))
        };
        missing.extend(flags.iter().filter(|flag| !is_told(flag)).map(|flag| format!("{command} {flag}")));
    }
    assert!(missing.is_empty(), "docs/planning.md lacks {missing:?}");
}
