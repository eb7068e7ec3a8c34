//! `roomcast cluster status`: asks an operator door for the cluster over all nodes, and says it as a table.

mod table;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use roomcast_core::cluster::status::ClusterView;
use roomcast_core::limits::{SECRET_BYTES_MAX, STATUS_AGE_MAX, STATUS_BYTES_MAX};

use crate::door::{DoorAnswer, DoorQuestion, OpsDoor};

/// The path of the status at an operator door.
const PATH: &str = "/v1/ops/cluster";

/// The status of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The door's answer, JSON.
    pub json: String,
    view: ClusterView,
}

/// The reason why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum NoStatus {
    /// The door does not answer.
    #[error(transparent)]
    Door(#[from] io::Error),
    /// The door refuses: the node is alone, or wants another key.
    #[error("{status} {what}")]
    Refused {
        /// The status code.
        status: u16,
        /// The reason in words.
        what: String,
    },
    /// The answer is none of this version of roomcast.
    #[error("the answer is no status of a cluster: {0}")]
    Strange(#[from] serde_json::Error),
}

/// The members of a problem that a person reads.
#[derive(Debug, Deserialize)]
struct ToldProblem {
    code: String,
    detail: Option<String>,
    allowed: Option<String>,
}

impl Status {
    /// Asks a door, with a key if it wants one.
    ///
    /// # Errors
    /// [`NoStatus`].
    pub fn ask(door: &OpsDoor, key: Option<&str>) -> Result<Self, NoStatus> {
        let question = DoorQuestion { path: PATH, key, age_max: STATUS_AGE_MAX, bytes_max: STATUS_BYTES_MAX };
        let DoorAnswer { status, body } = door.ask(&question)?;
        if status != 200 {
            return Err(NoStatus::Refused { status, what: refusal(&body) });
        }
        let view = serde_json::from_str(&body)?;
        Ok(Self { json: body, view })
    }

    /// True if the cluster has no trouble.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.view.troubles.is_empty()
    }

    /// The status as a text for people.
    #[must_use]
    pub fn table(&self) -> String {
        table::of(&self.view)
    }
}

/// The words of a refusal. A stranger's page is none.
fn refusal(body: &str) -> String {
    let Ok(ToldProblem { code, detail, allowed }) = serde_json::from_str(body) else {
        return "and no problem of roomcast: is this an operator door?".to_owned();
    };
    let why = detail.or_else(|| allowed.map(|allowed| format!("allowed: {allowed}")));
    table::printable(&why.map_or_else(|| code.clone(), |why| format!("{code}: {why}")))
}

/// Reads a bearer key, the content of a file without a final line end.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn key_in(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let mut key = String::new();
    // One byte past the limit tells a file that is too large. A path like /dev/zero would never end.
    let bytes_max = SECRET_BYTES_MAX as u64;
    let read = File::open(file).and_then(|file| file.take(bytes_max + 1).read_to_string(&mut key));
    let read = read.map_err(|error| format!("{shown} can't be read ({error})"))?;
    if read as u64 > bytes_max {
        return Err(format!("{shown} is too large: allowed are {bytes_max} bytes"));
    }
    let key = key.trim_end_matches(['\r', '\n']);
    // Anything else would end the header.
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{shown} holds no key: allowed is one line of visible ASCII"));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_refusal_says_its_code_and_its_reason() {
        let alone = r#"{"status":404,"code":"no_cluster","detail":"this node is alone"}"#;
        assert_eq!(refusal(alone), "no_cluster: this node is alone");
        assert_eq!(refusal(r#"{"code":"key_missing","allowed":"Bearer"}"#), "key_missing: allowed: Bearer");
        assert_eq!(refusal(r#"{"code":"not_found"}"#), "not_found");
        assert!(refusal("<html>").contains("is this an operator door?"));
    }

    #[test]
    fn a_key_is_one_line_of_visible_ascii() {
        let file = std::env::temp_dir().join(format!("roomcast-ops-key-{}", std::process::id()));
        for (content, key) in [("secret\n", "secret"), ("secret\r\n", "secret"), ("secret", "secret")] {
            fs::write(&file, content).unwrap();
            assert_eq!(key_in(&file).unwrap(), key);
        }
        for content in ["", "\n", "two\nlines", "a b", "\u{e4}", &"x".repeat(SECRET_BYTES_MAX + 1)] {
            fs::write(&file, content).unwrap();
            assert!(key_in(&file).unwrap_err().starts_with(&file.display().to_string()));
        }
        fs::remove_file(&file).unwrap();
        assert!(key_in(&file).unwrap_err().contains("can't be read"));
    }
}
