//! Finding and reading the configuration: one file, and the playbooks beside it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::{self, Document};
use super::path::KeyPath;
use super::problem::{Problem, Sources};
use super::secret::SecretEnv;
use super::{Config, PlaybookConfig, check};

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
    /// Where each key stands.
    pub sources: Sources,
}

impl Loaded {
    /// What is wrong with the secrets: every one that cannot be had. The daemon reads them again when it starts.
    pub fn check_secrets(&self, env: &SecretEnv) -> Vec<Problem> {
        check::secrets(&self.config, &self.sources, env)
    }
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
    let mut problems = Vec::new();
    let mut reading = Reading { sources: Sources::new(file), repaired: BTreeSet::new() };
    let main = reading.take::<Config>(file, 0, &mut problems);
    let mut playbooks = Vec::new();
    let own = main.as_ref().map_or(0, |config| config.playbooks.len());
    for extra in playbook_files(file, &mut problems) {
        if let Some(more) = reading.take::<Playbooks>(&extra, own + playbooks.len(), &mut problems) {
            playbooks.extend(more.playbooks);
        }
    }
    if let Some(mut config) = main {
        config.playbooks.extend(playbooks);
        problems.extend(check::all(&config, &reading.sources, &reading.repaired));
        if problems.is_empty() {
            return Ok(Loaded { config, sources: reading.sources });
        }
    }
    // Files keep their order: the main one first.
    problems
        .sort_by_cached_key(|problem| (problem.file != file.display().to_string(), problem.file.clone(), problem.line));
    Err(problems)
}

/// A file of `playbooks.d`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Playbooks {
    #[serde(default, rename = "playbook")]
    playbooks: Vec<PlaybookConfig>,
}

struct Reading {
    sources: Sources,
    repaired: BTreeSet<KeyPath>,
}

impl Reading {
    /// Reads one file whose playbooks are counted from `offset`.
    fn take<T: serde::de::DeserializeOwned>(
        &mut self,
        file: &Path,
        offset: usize,
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
        match document::read::<T>(file, &text) {
            Ok(Document { value, problems: found, repaired, spots }) => {
                problems.extend(found);
                self.repaired.extend(repaired.into_iter().map(|path| path.with_playbooks_from(offset)));
                for (path, spot) in spots {
                    // The arrays themselves belong to the file that began them.
                    if offset == 0 || path.segments().len() > 1 {
                        self.sources.insert(path.with_playbooks_from(offset), spot);
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
