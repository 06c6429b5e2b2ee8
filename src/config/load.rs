//! Finding and reading the configuration: one file, and the playbooks beside it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::document::{self, Document, Repairs};
use super::path::Offset;
use super::playtest::TestConfig;
use super::problem::{Problem, Sources};
use super::secret::SecretEnv;
use super::{Config, PlaybookConfig, check};
use crate::playbook::Playbook;

/// The file that is read when neither `--config` nor the environment names one.
pub const DEFAULT_FILE: &str = "/etc/okta-responder/config.toml";

/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "OKTA_RESPONDER_CONFIG";

/// The directory beside the file whose `*.toml` add playbooks.
pub const PLAYBOOKS_DIRECTORY: &str = "playbooks.d";

/// The most bytes one file may have.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The most files of playbooks.
pub const MAX_PLAYBOOK_FILES: usize = 256;

/// A configuration in which nothing is wrong, as far as the files themselves can tell.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, with the playbooks of every file.
    pub config: Config,
    /// The same playbooks, compiled.
    pub playbooks: Vec<Playbook>,
    /// Where each key stands.
    pub sources: Sources,
    /// SHA-256 over the texts of all files, in hexadecimal, by which two configurations are told apart.
    pub sha256: String,
}

/// The file to read: `--config`, else `$OKTA_RESPONDER_CONFIG`, else [`DEFAULT_FILE`].
pub fn locate(argument: Option<&Path>, variable: Option<OsString>) -> PathBuf {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    argument.map(Path::to_owned).or(variable).unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
}

/// Reads the file and `playbooks.d/*.toml` beside it (in the order of their names) and checks everything that can be
/// checked without a secret, a clock or a request.
///
/// # Errors
/// Every problem that was found, in the order of files and lines.
pub fn load(file: &Path) -> Result<Loaded, Vec<Problem>> {
    load_and(file, |_, _| Vec::new())
}

/// As [`load`], and with what a daemon needs around it: the secrets, each of which has to be there, and the directory of
/// a state file that is named.
///
/// # Errors
/// Every problem that was found, in the order of files and lines.
pub fn load_with_secrets(file: &Path, env: &SecretEnv) -> Result<Loaded, Vec<Problem>> {
    load_and(file, |config, reading| surroundings(config, reading, env, true))
}

/// As [`load_with_secrets`], for a person outside the unit: where systemd passed no credentials, none is asked for.
///
/// # Errors
/// Every problem that was found, in the order of files and lines.
pub fn load_with_secrets_at_hand(file: &Path, env: &SecretEnv) -> Result<Loaded, Vec<Problem>> {
    let credentials = env.has_credentials();
    load_and(file, |config, reading| surroundings(config, reading, env, credentials))
}

/// The configuration as far as it can be read, for a command that needs no more of it than the state file's place: what a
/// daemon that is at work does has to be seen and stopped also while somebody edits its configuration. With it the number
/// of problems there are.
///
/// # Errors
/// Every problem, when no configuration can be made of the file, or one lies in `[state]` itself.
pub fn load_for_state(file: &Path) -> Result<(Config, usize), Vec<Problem>> {
    match load(file) {
        Ok(loaded) => Ok((loaded.config, 0)),
        Err(problems) if problems.iter().any(|problem| problem.place.starts_with("[state]")) => Err(problems),
        Err(problems) => {
            let mut reading =
                Reading { sources: Sources::new(file), repairs: Repairs::default(), digest: Sha256::new() };
            match reading.take::<Config>(file, Offset::default(), &mut Vec::new()) {
                Some(config) => Ok((config, problems.len())),
                None => Err(problems),
            }
        }
    }
}

fn surroundings(config: &Config, reading: &Reading, env: &SecretEnv, credentials: bool) -> Vec<Problem> {
    let mut problems = check::secrets(config, &reading.sources, &reading.repairs, env, credentials);
    problems.extend(check::network(config, &reading.sources, &reading.repairs, env, credentials));
    problems.extend(check::state_directory(config, &reading.sources));
    problems
}

fn load_and(file: &Path, more: impl Fn(&Config, &Reading) -> Vec<Problem>) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut reading = Reading { sources: Sources::new(file), repairs: Repairs::default(), digest: Sha256::new() };
    let main = reading.take::<Config>(file, Offset::default(), &mut problems);
    let (mut playbooks, mut tests) = (Vec::new(), Vec::new());
    let own = main.as_ref().map_or((0, 0), |config| (config.playbooks.len(), config.tests.len()));
    for extra in playbook_files(file, &mut problems) {
        let offset = Offset { playbooks: own.0 + playbooks.len(), tests: own.1 + tests.len() };
        if let Some(more) = reading.take::<Playbooks>(&extra, offset, &mut problems) {
            playbooks.extend(more.playbooks);
            tests.extend(more.tests);
        }
    }
    if let Some(mut config) = main {
        config.playbooks.extend(playbooks);
        config.tests.extend(tests);
        let (playbooks, found) = check::all(&config, &reading.sources, &reading.repairs);
        problems.extend(more(&config, &reading));
        problems.extend(found);
        if problems.is_empty() {
            let sha256 = reading.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(Loaded { config, playbooks, sources: reading.sources, sha256 });
        }
    }
    // Files keep their order: the main one first.
    problems
        .sort_by_cached_key(|problem| (problem.file != file.display().to_string(), problem.file.clone(), problem.line));
    Err(problems)
}

/// A file of `playbooks.d`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Playbooks {
    /// The playbooks.
    #[serde(default, rename = "playbook")]
    playbooks: Vec<PlaybookConfig>,
    /// What they are meant to do; for `okta-responder test`.
    #[serde(default, rename = "test")]
    tests: Vec<TestConfig>,
}

struct Reading {
    sources: Sources,
    repairs: Repairs,
    digest: Sha256,
}

impl Reading {
    /// Reads one file whose playbooks and tests are counted from `offset`.
    fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        file: &Path,
        offset: Offset,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let text = match read(file) {
            Ok((text, warnings)) => {
                problems.extend(warnings);
                text
            }
            Err(problem) => {
                problems.push(*problem);
                return None;
            }
        };
        // The length keeps two files apart from one that holds both texts.
        self.digest.update(text.len().to_be_bytes());
        self.digest.update(text.as_bytes());
        match document::read::<T>(file, &text) {
            Ok(Document { value, problems: found, repairs, spots }) => {
                problems.extend(found);
                self.repairs.extend(repairs, offset);
                for (path, spot) in spots {
                    // The arrays themselves belong to the file that began them.
                    if offset == Offset::default() || path.segments().len() > 1 {
                        self.sources.insert(path.counted_from(offset), spot);
                    }
                }
                Some(value)
            }
            Err(found) => {
                problems.extend(found);
                None
            }
        }
    }
}

/// The files of playbooks in the order of their names. A missing directory is an empty one.
fn playbook_files(main: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let directory = main.parent().unwrap_or(Path::new("")).join(PLAYBOOKS_DIRECTORY);
    let listed = std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    let mut files = match listed {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let remedy = "make it readable for the user that runs okta-responder";
            problems.push(Problem::of_file(&directory, format!("the directory cannot be read: {error}"), remedy));
            return Vec::new();
        }
    };
    files.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    });
    files.sort();
    if files.len() > MAX_PLAYBOOK_FILES {
        let message = format!("{} files of playbooks are more than {MAX_PLAYBOOK_FILES}", files.len());
        problems.push(Problem::of_file(&directory, message, "put several playbooks into one file"));
        files.truncate(MAX_PLAYBOOK_FILES);
    }
    files
}

/// Reads a bounded text file; who else may write it is a problem of its own that does not stop the reading.
fn read(path: &Path) -> Result<(String, Option<Problem>), Box<Problem>> {
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("create it (config.example.toml is a start), or name another with --config or {FILE_VARIABLE}")
            }
            _ => "make it readable for the user that runs okta-responder".to_owned(),
        };
        Box::new(Problem::of_file(path, format!("the file cannot be read: {error}"), remedy))
    };
    let refused = |message: String, remedy: &str| Err(Box::new(Problem::of_file(path, message, remedy)));
    // A pipe would be waited for, so the kind is looked at before it is opened.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return refused("this is not a regular file".to_owned(), "name a file");
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return refused(message, "check that it is the right one, or move playbooks to playbooks.d");
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return refused("the file is not UTF-8 text".to_owned(), "save it as UTF-8");
    };
    let open = (mode & 0o002 != 0).then(|| {
        let message = format!("everybody may change this file (mode {mode:04o}), and it decides who loses access");
        Problem::of_file(path, message, format!("chmod o-w {}", path.display()))
    });
    Ok((text, open))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MINIMAL: &str = "[okta]\norg_url = \"https://example.okta.com\"\ntoken = { env = \"T\" }\n";

    struct Room {
        directory: tempfile::TempDir,
    }

    impl Room {
        fn new(main: &str, playbooks: &[(&str, &str)]) -> Self {
            let room = Self { directory: tempfile::tempdir().unwrap() };
            fs::create_dir(room.path(PLAYBOOKS_DIRECTORY)).unwrap();
            room.write("config.toml", main);
            for (name, text) in playbooks {
                room.write(&format!("{PLAYBOOKS_DIRECTORY}/{name}"), text);
            }
            room
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), Permissions::from_mode(0o640)).unwrap();
        }

        fn load(&self) -> Result<Loaded, Vec<Problem>> {
            load(&self.path("config.toml"))
        }

        /// Everything that is wrong, as people read it, with the directory left out.
        fn problems(&self) -> String {
            let problems = self.load().err().unwrap_or_default();
            let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
            text.join("\n").replace(&format!("{}/", self.directory.path().display()), "")
        }
    }

    /// What is wrong with one file that stands alone.
    fn check(text: &str) -> String {
        Room::new(text, &[]).problems()
    }

    fn playbook(name: &str) -> String {
        format!(
            "[[playbook]]\nname = \"{name}\"\non = [\"user.risk.detect\"]\n[[playbook.step]]\nname = \"s\"\n\
             action = \"okta.user.clear_sessions\"\n"
        )
    }

    #[test]
    fn the_file_is_named_by_the_argument_then_the_environment_then_by_convention() {
        let argument = Some(Path::new("a.toml"));
        assert_eq!(locate(argument, Some("e.toml".into())), Path::new("a.toml"));
        assert_eq!(locate(None, Some("e.toml".into())), Path::new("e.toml"));
        assert_eq!(locate(None, Some(OsString::new())), Path::new(DEFAULT_FILE));
        assert_eq!(locate(None, None), Path::new(DEFAULT_FILE));
    }

    #[test]
    fn playbooks_beside_the_file_are_added_in_the_order_of_their_names() {
        let room = Room::new(
            &format!("{MINIMAL}{}", playbook("first")),
            &[
                ("20-b.toml", &playbook("third")),
                ("10-a.toml", &playbook("second")),
                (".hidden.toml", "no"),
                ("README", "no"),
            ],
        );
        let loaded = room.load().unwrap();
        let names: Vec<_> = loaded.config.playbooks.iter().map(|playbook| playbook.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "third"]);
    }

    #[test]
    fn a_missing_playbooks_directory_is_an_empty_one() {
        let room = Room::new(MINIMAL, &[]);
        fs::remove_dir(room.path(PLAYBOOKS_DIRECTORY)).unwrap();
        assert!(room.load().is_ok());
    }

    #[test]
    fn problems_in_playbook_files_name_their_file_line_and_playbook() {
        let room = Room::new(
            &format!("{MINIMAL}{}", playbook("one")),
            &[
                ("a.toml", "[slack]\n"),
                ("b.toml", &format!("{}after = [\"nobody\"]\n", playbook("two"))),
                ("c.toml", &playbook("one")),
            ],
        );
        insta::assert_snapshot!(room.problems());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem() {
        let room = Room::new(MINIMAL, &[]);
        fs::remove_file(room.path("config.toml")).unwrap();
        assert!(room.problems().contains("the file cannot be read: No such file"));
        fs::create_dir(room.path("config.toml")).unwrap();
        assert!(room.problems().contains("this is not a regular file"));
    }

    #[test]
    fn what_is_too_large_or_not_text_is_refused() {
        let room = Room::new("", &[]);
        fs::write(room.path("config.toml"), vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(room.problems().contains("is larger than"));
        fs::write(room.path("config.toml"), b"# \xff").unwrap();
        assert!(room.problems().contains("not UTF-8"));
    }

    #[test]
    fn a_file_that_everybody_may_write_is_a_problem_even_when_its_content_is_right() {
        let room = Room::new(MINIMAL, &[]);
        fs::set_permissions(room.path("config.toml"), Permissions::from_mode(0o666)).unwrap();
        insta::assert_snapshot!(room.problems());
    }

    #[test]
    fn every_secret_that_cannot_be_had_is_told() {
        let room = Room::new(
            "[okta]\norg_url = \"https://example.okta.com\"\ntoken = { env = \"MISSING\" }\n\n[servicenow]\n\
             url = \"https://example.service-now.com\"\nclient_id = \"c\"\n\
             client_secret = { credential = \"servicenow-secret\" }\n\n[slack]\nwebhook_url = { file = \"/nowhere/slack\" }\n",
            &[],
        );
        let problems = load_with_secrets(&room.path("config.toml"), &SecretEnv::new(None, |_| None)).unwrap_err();
        let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
        insta::assert_snapshot!(text.join("\n").replace(&format!("{}/", room.directory.path().display()), ""));
    }

    #[test]
    fn a_request_goes_only_to_a_service_that_is_listed() {
        let step = |action: &str, service: &str| {
            let with = format!("with = {{ service = \"{service}\", method = \"POST\", path = \"/x\" }}");
            playbook("p").replace("action = \"okta.user.clear_sessions\"", &format!("action = \"{action}\"\n{with}"))
        };
        let edr = "[http.edr]\nbase_url = \"https://api.example.com\"\n";
        for action in ["http.request", "http.access.change"] {
            assert_eq!(check(&format!("{MINIMAL}{edr}{}", step(action, "edr"))), "");
            let told = check(&format!("{MINIMAL}{edr}{}", step(action, "edrr")));
            assert!(
                told.contains("there is no section [http.edrr]") && told.contains("did you mean \"edr\"?"),
                "{told}"
            );
            let told = check(&format!("{MINIMAL}{}", step(action, "edr")));
            assert!(told.contains("needs the section [http.NAME], and it is not there"), "{told}");
        }
        let told = check(&format!("{MINIMAL}{}", edr.replace("edr", "Edr").replace("api.example.com", "10.0.0.1")));
        assert!(told.contains("[http.Edr]: `Edr` is not the name of a service"), "{told}");
        assert!(told.contains("[http.Edr] base_url: 10.0.0.1 is no public address"), "{told}");
    }

    const SERVICE_APP: &str =
        "[okta]\norg_url = \"https://example.okta.com\"\nclient_id = \"0oa1\"\nprivate_key = { env = \"K\" }\n";

    #[test]
    fn there_is_exactly_one_way_to_sign_in() {
        let org = "[okta]\norg_url = \"https://example.okta.com\"\n";
        assert_eq!(check(SERVICE_APP), "");
        for (text, expected) in [
            (org.to_owned(), "config.toml:1: [okta]: there is no way to sign in to Okta"),
            (
                format!("{SERVICE_APP}token = {{ env = \"T\" }}\n"),
                "config.toml:5: [okta] token: token and a service app",
            ),
            (format!("{MINIMAL}client_id = \"0oa1\"\n"), "config.toml:3: [okta] token: token and a service app"),
            (format!("{org}client_id = \"0oa1\"\n"), "[okta] client_id: client_id is set without private_key"),
            (format!("{org}private_key = {{ env = \"K\" }}\n"), "private_key is set without client_id"),
            (format!("{MINIMAL}key_id = \"k\"\n"), "[okta] key_id: key_id says nothing about an API token"),
            (format!("{MINIMAL}dpop = \"auto\"\n"), "[okta] dpop: dpop says nothing about an API token"),
            (format!("{SERVICE_APP}algorithm = \"PS256\"\n"), "`PS256` is not one of the choices"),
            (format!("{SERVICE_APP}dpop = \"on\"\n"), "`on` is not one of the choices"),
            (format!("{SERVICE_APP}key_id = \"a b\"\n"), "\"a b\" is empty or holds white space"),
            (SERVICE_APP.replace("0oa1", ""), "[okta] client_id: \"\" is empty"),
        ] {
            let problems = check(&text);
            assert!(problems.contains(expected), "{expected}: {problems}");
            assert_eq!(problems.matches("error:").count(), 1, "{problems}");
        }
        let key_in_the_file = check(&SERVICE_APP.replace("{ env = \"K\" }", "\"-----BEGIN hunter2\""));
        assert!(key_in_the_file.contains("never stands in the configuration") && !key_in_the_file.contains("hunter2"));
    }

    #[test]
    fn a_private_key_that_cannot_sign_is_told_with_its_place() {
        let room = Room::new(SERVICE_APP, &[]);
        let told = |key: &'static str| {
            let env = SecretEnv::new(None, move |name| (name == "K").then(|| key.into()));
            let problems = load_with_secrets(&room.path("config.toml"), &env).err().unwrap_or_default();
            problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
        };
        let public = told("-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----\n");
        assert!(public.contains("config.toml:4: [okta] private_key: this is a public key"), "{public}");
        assert!(public.contains("remedy: give the private half") && !public.contains("hunter2"), "{public}");
        assert!(told("").contains("is empty"));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let key: &'static str = Box::leak(key.into_boxed_str());
        assert_eq!(told(key), "");
        room.write("config.toml", &format!("{SERVICE_APP}algorithm = \"RS256\"\n"));
        let mismatch = told(key);
        assert!(
            mismatch.contains("config.toml:5: [okta] algorithm: RS256 does not fit: this is an EC key"),
            "{mismatch}"
        );
        assert!(mismatch.contains("remedy: write ES256"), "{mismatch}");
    }

    #[test]
    fn a_problem_is_one_json_object() {
        let room = Room::new(&MINIMAL.replace("example.okta.com", "example-admin.okta.com"), &[]);
        let problems = room.load().unwrap_err();
        let json: serde_json::Value = serde_json::from_str(&problems[0].to_json()).unwrap();
        assert_eq!(json["line"], 2);
        assert_eq!(json["place"], "[okta] org_url");
        assert_eq!(json["remedy"], "write \"https://example.okta.com\"");
        assert!(!problems[0].to_json().contains('\n'));
    }

    #[test]
    fn every_mistake_of_shape_is_told_at_once() {
        insta::assert_snapshot!(check(
            r##"
            surprise = 1

            [okta]
            orgurl = "https://example.okta.com"
            token = "00aVerySecretTokenValue"
            timeout = "30 parsecs"
            rate_share = "half"

            [poll]
            start_from = "yesterday"
            interval = "0s"
            page_size = -1

            [riks]
            source = "okta"

            [risk]
            source = "group"

            [guard]
            protected_users = ["00u1", 7]

            [slack]
            token = { fil = "/etc/okta-responder/slack-token" }

            [email]
            password = { file = "a", env = "b" }

            [[playbook]]
            on = ["user.risk.detect"]

            [[playbook.step]]
            nmae = "quarantine"
            action = "okta.group.add_user"

            [[playbook.step]]
            name = "tell"
            after = "quarantine"
            wait = 30

            [[playbook]]
            name = "other"
            on = "user.risk.detect"
            mode = "watch"
            "##
        ));
    }

    #[test]
    fn every_mistake_of_meaning_is_told_at_once() {
        insta::assert_snapshot!(check(
            r##"
            [okta]
            org_url = "https://example-admin.okta.com"
            admin_url = "http://admin.example.com"
            token = { env = "T" }
            timeout = "0s"
            rate_share = 1.5

            [poll]
            page_size = 1001

            [dispatch]
            concurrency = 0
            retry_initial = "10s"
            retry_max = "1s"

            [risk]
            high_group = "Risky"
            medium_group = "Risky"

            [guard]
            protected_users = [""]
            protected_apps = ["Payroll"]

            [log]
            level = "a=b=c"

            [servicenow]
            url = "https://me:hunter2@example.service-now.com"
            username = "me"
            client_secret = { env = "S" }
            table = "Incidents"

            [slack]
            token = { env = "S" }
            webhook_url = { env = "S" }

            [email]
            host = "smtp.example.com:25"
            from = "nobody"
            tls = "none"
            username = "me"

            [[playbook]]
            name = "a playbook"
            on = []

            [[playbook]]
            name = "p"
            on = ["user.risk.detect ", "risk", "user.risk.change", "user.risk.change"]

            [[playbook.step]]
            name = "one"
            action = "okta.user.clear_sessions"
            after = ["two"]

            [[playbook.step]]
            name = "two"
            action = "okta.user.clear_sessions"
            needs = ["three"]

            [[playbook.step]]
            name = "three"
            action = "okta.user.clear_sessions"
            after = ["one", "tow"]
            wait = "0s"

            [[playbook.step]]
            name = "three"
            action = "okta.user.clear_sessions"
            wait = "5s"

            [[playbook]]
            name = "p"
            on = ["user.risk.detect"]
            [[playbook.step]]
            name = "itself"
            action = "okta.user.clear_sessions"
            needs = ["itself"]
            "##
        ));
    }

    #[test]
    fn what_the_compiler_of_playbooks_finds_is_told_with_its_line() {
        insta::assert_snapshot!(check(&format!(
            "{MINIMAL}{}",
            r##"
            [[playbook]]
            name = "p"
            on = ["user.risk.detect"]
            when = 'risk.level = "HIGH"'

            [[playbook.step]]
            name = "group"
            action = "okta.group.add_usr"

            [[playbook.step]]
            name = "group2"
            action = "okta.group.add_user"
            with = { group = "A", colour = "red" }

            [[playbook.step]]
            name = "mail"
            action = "email.send"
            [playbook.step.with]
            to = "a@example.com"
            subject = "{{ usr.name }}"
            text = "{% if %}"

            [[playbook.step]]
            name = "tell"
            action = "slack.message.post"
            with = { channel = "#c", text = "{{ steps.group.state }}" }

            [[playbook]]
            name = "q"
            on = ["application.user_membership.add"]
            when = 'user_risk == "HIGH"'

            [[playbook.step]]
            name = "take"
            action = "okta.app.unassign_user"
            "##
        )));
    }

    #[test]
    fn fields_and_levels_that_do_not_exist_are_told_with_their_line() {
        insta::assert_snapshot!(check(&format!(
            "{MINIMAL}{}",
            r##"
            [[playbook]]
            name = "p"
            on = ["user.risk.detect"]
            when = "target.logn == 3"

            [[playbook.step]]
            name = "quarantine"
            when = 'risk.lvl == "HIGH"'
            action = "okta.group.add_user"
            with = { group = "{{ target.logn }}" }

            [[playbook.step]]
            name = "watch"
            when = 'risk.level in ["LOW", "Mid"]'
            action = "okta.group.add_user"
            with = { group = "{{ user.nme }}" }

            [[playbook.step]]
            name = "release"
            when = 'risk.level == "High"'
            action = "okta.group.remove_user"
            with = { group = "{{ manager.emial }}" }

            [[playbook.step]]
            name = "sessions"
            when = "risk.level"
            action = "okta.user.clear_sessions"
            "##
        )));
    }

    #[test]
    fn an_empty_file_names_what_has_to_be_there() {
        insta::assert_snapshot!(check(""));
    }

    #[test]
    fn sections_that_cannot_work_are_told() {
        insta::assert_snapshot!(check(&format!(
            "{MINIMAL}[servicenow]\nurl = \"example.service-now.com\"\n[slack]\n[email]\nhost = \"h\"\nfrom = \"a@b.c\"\n\
             password = {{ env = \"P\" }}\n"
        )));
    }

    #[test]
    fn a_jira_that_cannot_work_is_told_and_one_that_can_is_not() {
        let told = |section: &str| check(&format!("{MINIMAL}[jira]\ntoken = {{ env = \"T\" }}\n{section}"));
        let cloud = told(
            "url = \"https://example.atlassian.net\"\nflavor = \"server\"\nbrowse_url = \"example\"\ntimeout = \"0s\"",
        );
        for part in ["is Jira Cloud", "together with its user's", "[jira] browse_url", "the duration is zero"] {
            assert!(cloud.contains(part), "`{part}` is not in {cloud}");
        }
        for fine in [
            "url = \"https://example.atlassian.net\"\nusername = \"a@example.com\"",
            "url = \"https://api.atlassian.com/ex/jira/1\"\nbrowse_url = \"https://example.atlassian.net\"",
            "url = \"https://jira.example.com/jira\"\nflavor = \"server\"\nsearch_lag = \"0s\"",
        ] {
            assert_eq!(told(fine), "", "{fine}");
        }
    }

    #[test]
    fn text_that_is_not_toml_shows_the_line_and_keeps_secrets_back() {
        insta::assert_snapshot!(check(
            "[okta]\norg_url = https://example.okta.com\ntoken = \"00aVerySecretTokenValue\n[poll]\npage_size = 1\npage_size = 2\n\
             [slack]\nname = \u{201c}x\u{201d}\n"
        ));
    }

    #[test]
    fn a_repaired_table_makes_no_problems_of_its_own() {
        let slack = check(&format!("{MINIMAL}[slack]\nwebhok_url = {{ env = \"S\" }}\n"));
        assert_eq!(slack.matches("error:").count(), 1, "{slack}");
        let step = check(&format!(
            "{MINIMAL}[[playbook]]\nname = \"p\"\non = [\"a.b\"]\n[[playbook.step]]\nnmae = \"s\"\n\
             action = \"okta.user.clear_sessions\"\n[[playbook.step]]\nname = \"t\"\n\
             action = \"okta.user.clear_sessions\"\nafter = [\"s\"]\n"
        ));
        assert_eq!(step.matches("error:").count(), 1, "{step}");
    }

    #[test]
    fn no_secret_written_into_the_file_is_ever_repeated() {
        for text in [
            "token = \"hunter2\"",
            "token = { file = [\"hunter2\"] }",
            "token = hunter2",
            "token = \"hunter2",
            "tokn = \"hunter2\"",
            "token = [\"hunter2\"]",
            "token = { env = \"T\" }\norg_url = \"https://me:hunter2@example.okta.com\"",
            "token = { env = \"T\" }\n[email]\npassword = \"hunter2\"",
            "token = { env = \"T\" }\n[slack]\nwebhook_url = \"https://hooks.slack.com/hunter2\"",
            "token = { secret = \"hunter2\" }",
        ] {
            let problems = check(&format!("[okta]\n{text}\n"));
            assert!(!problems.is_empty() && !problems.contains("hunter2"), "{text}: {problems}");
        }
    }

    #[test]
    fn odd_files_are_refused_without_harm() {
        let deep = |open: &str| format!("x = {}", open.repeat(100_000));
        for text in [
            "\0",
            "=",
            "[",
            "[[playbook]]\nstep = 7",
            "playbook = [7, [8]]",
            "okta = 7",
            "[okta]\n[okta]",
            "[okta.token]",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([deep("["), deep("{a="), format!("[{}a]", "a.".repeat(50_000))])
        {
            let shown: String = text.chars().take(30).collect();
            assert!(check(&text).contains("error:"), "{shown}");
        }
    }

    #[test]
    fn the_number_of_mistakes_told_is_bounded() {
        let text: String = (0..1000).map(|number| format!("key{number} = 1\n")).collect();
        let problems = check(&text);
        assert!(problems.matches("error:").count() <= 101, "{problems}");
    }

    #[test]
    fn the_state_file_is_the_configured_one_then_systemds_then_the_usual_one() {
        let mut config = Room::new(MINIMAL, &[]).load().unwrap().config;
        assert_eq!(config.state_path(None), Path::new("/var/lib/okta-responder/state.db"));
        assert_eq!(config.state_path(Some("/var/lib/one:/var/lib/two".as_ref())), Path::new("/var/lib/one/state.db"));
        config.state.path = Some("/srv/s.db".into());
        assert_eq!(config.state_path(Some("/var/lib/one".as_ref())), Path::new("/srv/s.db"));
    }
}
