//! Who does something to the state file.

use std::os::unix::fs::MetadataExt;

use serde::Serialize;

/// Who did it, as the journal tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Who {
    /// The program by itself.
    Program(&'static str),
    /// A person at the command line.
    Person {
        /// The command.
        command: &'static str,
        /// The number of the operating system's user that ran it.
        uid: u32,
        /// That user's name, where `/etc/passwd` has it.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// What `sudo` says of who called it. The caller's environment says so, and it is told as that.
        #[serde(skip_serializing_if = "Option::is_none")]
        sudo_user: Option<String>,
    },
}

impl Who {
    /// The program by itself, as daemon or in a backfill without one.
    pub const PROGRAM: Self = Self::Program("program");

    /// The person who runs this process.
    pub fn person(command: &'static str) -> Self {
        // The kernel shows a process' directory as belonging to the user that it acts as (proc(5)).
        let uid = std::fs::metadata("/proc/self").map_or(u32::MAX, |meta| meta.uid());
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let sudo_user = std::env::var("SUDO_USER").ok().map(|name| bounded(&name)).filter(|name| !name.is_empty());
        Self::Person { command, uid, user: name_of(uid, &passwd), sudo_user }
    }
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| bounded(name))
    })
}

/// Names are short; whatever is longer is none.
fn bounded(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_as_the_system_names_him() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ann"));
        assert_eq!(name_of(1001, passwd), None);
    }

    #[test]
    fn the_journal_tells_the_program_and_a_person_apart() {
        assert_eq!(serde_json::to_string(&Who::PROGRAM).unwrap(), "\"program\"");
        let Who::Person { uid, .. } = Who::person("pause") else { panic!("not a person") };
        let told = serde_json::to_value(Who::person("pause")).unwrap();
        assert_eq!((told["command"].as_str(), told["uid"].as_u64()), (Some("pause"), Some(u64::from(uid))));
    }
}
