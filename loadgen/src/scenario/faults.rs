//! Faults by time: a command against a node or a NATS server, checked before any load. Pure.
//!
//! A scenario names each action once, with its command, in `commands.node` and `commands.nats`. A fault names an
//! action, a target and a time. `{name}` in a command stands for the name of the target:
//! `kill = "ssh {name} systemctl kill -s KILL roomcast"` and `{ at = "10s", do = "kill", node = "node-1" }`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::units::Span;

/// The place of the target's name in a command.
const NAME: &str = "{name}";
/// Most letters of a name: as many as a host name has.
const NAME_LETTERS_MAX: usize = 253;
/// Signs allowed in a name, besides ASCII letters and digits. To the shell they are plain text.
const NAME_SIGNS: &str = "-._:@";

/// Action -> command for the shell, by the kind of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CommandsSection {
    pub(crate) node: BTreeMap<String, String>,
    pub(crate) nats: BTreeMap<String, String>,
}

/// A fault as written: a command of its own, or an action with its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultSection {
    /// Time after the start.
    pub(crate) at: Span,
    pub(crate) run: Option<String>,
    /// A name in `commands.node` or `commands.nats`.
    #[serde(rename = "do")]
    pub(crate) action: Option<String>,
    /// A name in `doors.names`.
    pub(crate) node: Option<String>,
    pub(crate) nats: Option<String>,
}

/// A shell command on this machine, run against a node or a NATS server. With any fault, devices come back when their
/// connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Time after the start.
    pub(crate) at: Span,
    /// The action and its target; `None` for a command without a name.
    pub(crate) name: Option<String>,
    pub(crate) run: String,
}

/// The faults by their times, with whole commands.
///
/// # Errors
/// One line with the fault, its field and the allowed values.
pub(crate) fn planned(
    faults: &[FaultSection],
    commands: &CommandsSection,
    nodes: &[String],
) -> Result<Vec<Fault>, String> {
    let planned = faults.iter().map(|fault| {
        fault.planned(commands, nodes).map_err(|why| format!("faults, the one at {}: {why}", fault.at))
    });
    let mut planned = planned.collect::<Result<Vec<_>, _>>()?;
    // The report counts faults in the order in which they happen.
    planned.sort_by_key(|fault| fault.at);
    Ok(planned)
}

/// The names of `count` nodes: those of the scenario, or node-1, node-2 and so on.
///
/// # Errors
/// One line with the mistake in `doors.names`.
pub(crate) fn node_names(named: &[String], count: usize) -> Result<Vec<String>, String> {
    if named.is_empty() {
        return Ok((1..=count).map(|number| format!("node-{number}")).collect());
    }
    if named.len() != count {
        let names = named.len();
        return Err(format!(
            "doors.names: {names} names for {count} operator doors (doors.ops, --ops-door); one for each, or none"
        ));
    }
    for (place, name) in named.iter().enumerate() {
        check_name(name).map_err(|why| format!("doors.names: {why}"))?;
        if named[..place].contains(name) {
            return Err(format!("doors.names: {name} stands twice"));
        }
    }
    Ok(named.to_vec())
}

impl FaultSection {
    fn planned(&self, commands: &CommandsSection, nodes: &[String]) -> Result<Fault, String> {
        let Self { at, run, action, node, nats } = self;
        let (kind, commands, name) = match (run, action, node, nats) {
            (Some(run), None, None, None) => return Ok(Fault { at: *at, name: None, run: run.clone() }),
            (None, Some(_), Some(node), None) => ("node", &commands.node, node),
            (None, Some(_), None, Some(nats)) => ("nats", &commands.nats, nats),
            _ => return Err("either `run`, or `do` with one of `node` and `nats`".into()),
        };
        if kind == "node" && !nodes.contains(name) {
            return Err(format!("node = {name:?} is not in doors.names: {}", nodes.join(", ")));
        }
        check_name(name).map_err(|why| format!("{kind}: {why}"))?;
        let action = action.as_deref().unwrap_or_default();
        let Some(command) = commands.get(action) else {
            let known: Vec<&str> = commands.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return Err(format!("do = {action:?} is not in commands.{kind}, which has {known}"));
        };
        Ok(Fault { at: *at, name: Some(format!("{action} {name}")), run: command.replace(NAME, name) })
    }
}

/// A name becomes a part of a shell's command, so it must be nothing else there.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || NAME_SIGNS.contains(letter);
    // The command would take a leading dash for a flag.
    if (1..=NAME_LETTERS_MAX).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name: 1 to {NAME_LETTERS_MAX} ASCII letters, digits and {NAME_SIGNS}, the first no dash"
    ))
}

#[cfg(test)]
mod tests {
    use crate::run::args::tests::resolve;
    use crate::scenario::file::Scenario;

    /// Three nodes, and commands for them and for NATS servers.
    const CLUSTER: [&str; 3] = [
        "doors.ops=[\"http://127.0.0.1:1\", \"http://127.0.0.1:2\", \"http://127.0.0.1:3\"]",
        "commands.node={ kill = \"c kill {name}\", stop = \"c stop {name}\" }",
        "commands.nats.partition=nft {name}",
    ];

    fn faults(sets: &[&str]) -> Result<Vec<(u64, String, String)>, String> {
        let flags = CLUSTER.iter().chain(sets).map(|set| (*set).to_owned()).collect::<Vec<_>>();
        let scenario = Scenario::load(None, &flags)?;
        let mut target = resolve("")?.target;
        target.ops_doors = scenario.doors.ops.iter().map(|door| door.parse().unwrap()).collect();
        let planned = scenario.resolve(target)?.faults;
        Ok(planned
            .into_iter()
            .map(|fault| (fault.at.ms(), fault.name.unwrap_or_default(), fault.run))
            .collect())
    }

    #[test]
    fn an_action_becomes_the_command_of_its_target() {
        let text = "faults=[{ at = 5, do = \"partition\", nats = \"nats.example:4222\" }, \
                    { at = 1, do = \"kill\", node = \"node-3\" }, { at = 2, run = \"true {name}\" }]";
        let plan = |at, name: &str, run: &str| (at, name.to_owned(), run.to_owned());
        assert_eq!(
            faults(&[text]).unwrap(),
            [
                plan(1_000, "kill node-3", "c kill node-3"),
                plan(2_000, "", "true {name}"),
                plan(5_000, "partition nats.example:4222", "nft nats.example:4222"),
            ]
        );
        let named = ["doors.names=[\"a\", \"b\", \"c\"]", "faults=[{ at = 1, do = \"stop\", node = \"b\" }]"];
        assert_eq!(faults(&named).unwrap(), [plan(1_000, "stop b", "c stop b")]);
    }

    #[test]
    fn a_fault_that_can_not_be_carried_out_is_named_before_any_load() {
        for (fault, named) in [
            ("at = 1", "at 1s: either `run`, or `do` with one of `node` and `nats`"),
            ("at = 1, do = \"kill\"", "either `run`"),
            ("at = 1, do = \"kill\", node = \"node-1\", nats = \"n\"", "either `run`"),
            ("at = 1, run = \"true\", node = \"node-1\"", "either `run`"),
            ("at = 1, do = \"kill\", node = \"node-4\"", "doors.names: node-1, node-2, node-3"),
            (
                "at = 1, do = \"kil\", node = \"node-1\"",
                "do = \"kil\" is not in commands.node, which has kill, stop",
            ),
            ("at = 1, do = \"kill\", nats = \"n\"", "commands.nats, which has partition"),
            ("at = 1, do = \"partition\", nats = \"n; reboot\"", "nats: \"n; reboot\" is no name"),
            ("at = 1, do = \"partition\", nats = \"-f\"", "is no name"),
        ] {
            let error = faults(&[&format!("faults=[{{ {fault} }}]")]).unwrap_err();
            assert!(error.contains(named) && error.lines().count() == 1, "{fault}: {error}");
        }
        for (names, named) in [
            ("[\"a\"]", "doors.names: 1 names for 3 operator doors"),
            ("[\"a\", \"b\", \"a\"]", "doors.names: a stands twice"),
            ("[\"a\", \"b\", \"$c\"]", "doors.names: \"$c\" is no name"),
        ] {
            let error = faults(&[&format!("doors.names={names}")]).unwrap_err();
            assert!(error.contains(named), "{names}: {error}");
        }
    }
}
