//! Where secrets come from: a file, a systemd credential, an environment variable. Never the configuration itself.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

/// The most bytes a secret may have.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The most bytes a private key may have: one of RSA with 8192 bits has some 7,000, and text may stand around it.
pub const MAX_KEY_BYTES: u64 = 32 * 1024;

/// `{ file = "…" }`, `{ credential = "…" }` or `{ env = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// A file that only its owner can read; surrounding white space is dropped.
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An environment variable.
    Env(String),
}

/// What secrets are looked up in besides the file system.
#[derive(Clone)]
pub struct SecretEnv {
    credentials_directory: Option<PathBuf>,
    variable: Arc<Variables>,
}

/// Looks an environment variable up.
type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl SecretEnv {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from), |name: &str| std::env::var_os(name))
    }

    /// A given credentials directory and a given look-up of variables.
    pub fn new(
        credentials_directory: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
    ) -> Self {
        Self { credentials_directory, variable: Arc::new(variable) }
    }

    /// An environment variable, if it is set and is text.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)?.into_string().ok()
    }

    /// Whether systemd passed credentials. A command that a person starts has none, however right the unit is.
    pub fn has_credentials(&self) -> bool {
        self.credentials_directory.is_some()
    }
}

impl std::fmt::Debug for SecretEnv {
    /// Variables may hold secrets, so only the directory is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretEnv").field("credentials_directory", &self.credentials_directory).finish_non_exhaustive()
    }
}

/// A secret that could not be had. Nothing of the secret is in it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file is missing or cannot be opened or read.
    #[error("the secret file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is a directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Somebody besides its owner can read or change it.
    #[error("the secret file {} is open to others (mode {mode:04o}, owner uid {uid})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
    },
    /// It holds nothing but white space.
    #[error("the secret in {origin} is empty")]
    Empty {
        /// The file, credential or variable.
        origin: String,
    },
    /// It is larger than [`MAX_SECRET_BYTES`] or, as a key, than [`MAX_KEY_BYTES`].
    #[error("the secret in {origin} is larger than {most} bytes")]
    TooLarge {
        /// The file, credential or variable.
        origin: String,
        /// The bound.
        most: u64,
    },
    /// It is not text: not UTF-8, or with control characters.
    #[error("the secret in {origin} is not UTF-8 text, or holds control characters")]
    NotText {
        /// The file, credential or variable.
        origin: String,
    },
    /// It has several lines: something was pasted behind it.
    #[error("the secret in {origin} has several lines")]
    SeveralLines {
        /// The file, credential or variable.
        origin: String,
    },
    /// systemd passed no credentials.
    #[error("the credential `{name}` is not there: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// systemd passed credentials, but not this one.
    #[error("the credential `{name}` is not among those that systemd passed")]
    NoCredential {
        /// The credential.
        name: String,
    },
    /// The name could lead out of the credentials directory.
    #[error("`{name}` is not the name of a credential")]
    CredentialName {
        /// The name.
        name: String,
    },
    /// The variable is not set.
    #[error("the environment variable {name} is not set")]
    NoVariable {
        /// The variable.
        name: String,
    },
}

impl SecretError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("create {} with the secret in it, or name the right file", path.display())
            }
            Self::Read { path, .. } => format!(
                "make {} readable for the user that runs okta-responder: chown USER {0} && chmod 600 {0}",
                path.display()
            ),
            Self::NotAFile { .. } => "name a file that holds the secret and nothing else".to_owned(),
            Self::Exposed { path, .. } => {
                format!("chmod 600 {}; if it was readable for long, replace the secret as well", path.display())
            }
            Self::Empty { origin } => format!("put the secret into {origin}"),
            Self::TooLarge { .. } | Self::NotText { .. } | Self::SeveralLines { .. } => {
                "check that it is the right one: a secret is one short line of text, and a private key is PEM or a JWK"
                    .to_owned()
            }
            Self::NoCredentials { name } => format!(
                "start the daemon with its unit, which has LoadCredential={name}:/etc/okta-responder/credentials/{name}; a command \
                 of your own can borrow what the running unit has: sudo env \
                 CREDENTIALS_DIRECTORY=/run/credentials/okta-responder.service okta-responder …; without systemd use \
                 {{ file = \"…\" }}"
            ),
            Self::NoCredential { name } => format!(
                "add LoadCredential={name}:/etc/okta-responder/credentials/{name} (or LoadCredentialEncrypted=) to the [Service] \
                 section of the unit, then `systemctl daemon-reload` and restart it"
            ),
            Self::CredentialName { .. } => {
                "write the part of LoadCredential= before the colon: a name without `/`, not `.` or `..`".to_owned()
            }
            Self::NoVariable { name } => format!("set {name} in the daemon's environment, or use {{ file = \"…\" }}"),
        }
    }
}

/// What a secret looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One line: a token, a password, an address.
    Line,
    /// A private key, which has several.
    Key,
}

impl Form {
    fn most_bytes(self) -> u64 {
        match self {
            Self::Line => MAX_SECRET_BYTES,
            Self::Key => MAX_KEY_BYTES,
        }
    }
}

/// How strict the permissions of a file are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Custody {
    /// Ours: nobody besides the owner.
    Owner,
    /// systemd's: it may hand a credential over as root's file with 0440 and an access list for the service's user.
    Systemd,
}

impl SecretSource {
    /// Reads the secret, without the white space around it.
    ///
    /// # Errors
    /// When it is missing, empty, larger than [`MAX_SECRET_BYTES`], not UTF-8, or lies in a file that others can open.
    pub fn resolve(&self, env: &SecretEnv) -> Result<SecretString, SecretError> {
        self.resolve_as(env, Form::Line)
    }

    /// As [`SecretSource::resolve`], for a private key: it may have several lines, and at most [`MAX_KEY_BYTES`].
    ///
    /// # Errors
    /// As [`SecretSource::resolve`].
    pub fn resolve_key(&self, env: &SecretEnv) -> Result<SecretString, SecretError> {
        self.resolve_as(env, Form::Key)
    }

    fn resolve_as(&self, env: &SecretEnv, form: Form) -> Result<SecretString, SecretError> {
        match self {
            Self::File(path) => {
                let below_credentials =
                    env.credentials_directory.as_ref().is_some_and(|directory| path.starts_with(directory));
                read(path, if below_credentials { Custody::Systemd } else { Custody::Owner }, form)
            }
            Self::Credential(name) => {
                if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                    return Err(SecretError::CredentialName { name: name.clone() });
                }
                let Some(directory) = &env.credentials_directory else {
                    return Err(SecretError::NoCredentials { name: name.clone() });
                };
                read(&directory.join(name), Custody::Systemd, form).map_err(|error| match error {
                    SecretError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                        SecretError::NoCredential { name: name.clone() }
                    }
                    other => other,
                })
            }
            Self::Env(name) => {
                let origin = format!("the environment variable {name}");
                // The platform's look-up may not be asked for names that no variable can have.
                let usable = !name.is_empty() && !name.contains(['=', '\0']);
                let value = usable.then(|| (env.variable)(name)).flatten();
                let value = value.ok_or_else(|| SecretError::NoVariable { name: name.clone() })?;
                accept(&Zeroizing::new(value.into_encoded_bytes()), origin, form)
            }
        }
    }
}

/// A secret and where it came from, so that it can be read again when its owner has replaced it. `Debug` shows its source.
///
/// Reading is synchronous: it is one small local file, and only a refusal or a reload leads to it.
pub struct LiveSecret {
    current: Mutex<SecretString>,
    origin: Option<(SecretSource, SecretEnv, Form)>,
}

impl LiveSecret {
    /// Reads the secret for the first time.
    ///
    /// # Errors
    /// As [`SecretSource::resolve`].
    pub fn read(source: &SecretSource, env: &SecretEnv) -> Result<Self, SecretError> {
        Self::read_as(source, env, Form::Line)
    }

    /// As [`LiveSecret::read`], for a private key.
    ///
    /// # Errors
    /// As [`SecretSource::resolve_key`].
    pub fn read_key(source: &SecretSource, env: &SecretEnv) -> Result<Self, SecretError> {
        Self::read_as(source, env, Form::Key)
    }

    fn read_as(source: &SecretSource, env: &SecretEnv, form: Form) -> Result<Self, SecretError> {
        let current = Mutex::new(source.resolve_as(env, form)?);
        Ok(Self { current, origin: Some((source.clone(), env.clone(), form)) })
    }

    /// The secret as it was read last.
    pub fn current(&self) -> SecretString {
        self.lock().clone()
    }

    /// Reads it again where it came from; true when it is another one now.
    ///
    /// # Errors
    /// As [`SecretSource::resolve`]; the old one stays then.
    pub fn reread(&self) -> Result<bool, SecretError> {
        let before = self.current();
        Ok(self.replacement(&before)?.is_some())
    }

    /// Reads it again because a service has refused `refused`, and gives what there is instead; `None` while it is still the
    /// same. What somebody else has read anew in the meantime counts too.
    ///
    /// # Errors
    /// As [`SecretSource::resolve`]; the old one stays then.
    pub fn replacement(&self, refused: &SecretString) -> Result<Option<SecretString>, SecretError> {
        // Held while it is read, so that of two readers the later one has the last word.
        let mut current = self.lock();
        let read = match &self.origin {
            Some((source, env, form)) => source.resolve_as(env, *form).map(|new| *current = new),
            None => Ok(()),
        };
        if current.expose_secret() != refused.expose_secret() {
            return Ok(Some(current.clone()));
        }
        read.map(|()| None)
    }

    fn lock(&self) -> MutexGuard<'_, SecretString> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<SecretString> for LiveSecret {
    /// A secret that comes from nowhere and stays as it is.
    fn from(secret: SecretString) -> Self {
        Self { current: Mutex::new(secret), origin: None }
    }
}

impl From<&str> for LiveSecret {
    fn from(secret: &str) -> Self {
        Self::from(SecretString::from(secret))
    }
}

impl From<String> for LiveSecret {
    fn from(secret: String) -> Self {
        Self::from(SecretString::from(secret))
    }
}

impl std::fmt::Debug for LiveSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveSecret")
            .field("source", &self.origin.as_ref().map(|(source, ..)| source))
            .finish_non_exhaustive()
    }
}

fn read(path: &Path, custody: Custody, form: Form) -> Result<SecretString, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    // Opening a pipe would wait for its writer, so the kind is looked at first; the rest is judged on the open file.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if is_exposed(&metadata, custody) {
        let mode = metadata.mode() & 0o7777;
        return Err(SecretError::Exposed { path: path.to_owned(), mode, uid: metadata.uid() });
    }
    // Room for all of it from the start: a buffer that grows leaves its first half behind where nobody overwrites it.
    let most = form.most_bytes() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or_default()));
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    accept(&bytes, path.display().to_string(), form)
}

fn is_exposed(metadata: &Metadata, custody: Custody) -> bool {
    let forbidden = match custody {
        Custody::Systemd if metadata.uid() == 0 => 0o037,
        Custody::Owner | Custody::Systemd => 0o077,
    };
    metadata.mode() & forbidden != 0
}

fn accept(bytes: &[u8], origin: String, form: Form) -> Result<SecretString, SecretError> {
    let most = form.most_bytes();
    if bytes.len() as u64 > most {
        return Err(SecretError::TooLarge { origin, most });
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(SecretError::NotText { origin });
    };
    match text.trim() {
        "" => Err(SecretError::Empty { origin }),
        text if form == Form::Line && text.contains(['\n', '\r']) => Err(SecretError::SeveralLines { origin }),
        // Such as the zeros of a file whose content never reached the disk. No header takes them, so a secret that is read
        // again must not become this: it would never be sent, never be refused, and so never be read again.
        text if text.chars().any(|c| c.is_ascii_control() && !c.is_ascii_whitespace()) => {
            Err(SecretError::NotText { origin })
        }
        secret => Ok(SecretString::from(secret)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Room {
        directory: tempfile::TempDir,
    }

    impl Room {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }

        fn env(&self) -> SecretEnv {
            SecretEnv::new(Some(self.directory.path().to_owned()), |_| None)
        }
    }

    fn bare() -> SecretEnv {
        SecretEnv::new(None, |name| (name == "TOKEN").then(|| " from-env\n".into()))
    }

    /// Resolves, and returns the secret or the error with its remedy; neither ever shows the secret of these tests.
    fn check(source: SecretSource, env: &SecretEnv) -> Result<String, String> {
        source.resolve(env).map(|secret| secret.expose_secret().to_owned()).map_err(|error| {
            let text = format!("{error:?} {error}; {}", error.remedy());
            assert!(!text.contains("hunter2"), "{text}");
            text
        })
    }

    #[test]
    fn a_private_file_gives_its_trimmed_content() {
        let room = Room::new();
        let path = room.file("token", b"hunter2 \r\n\n", 0o600);
        assert_eq!(check(SecretSource::File(path), &bare()).unwrap(), "hunter2");
    }

    #[test]
    fn what_holds_control_characters_is_no_secret_and_replaces_none() {
        let room = Room::new();
        let path = room.file("token", b"hunter2", 0o600);
        let live = LiveSecret::read(&SecretSource::File(path.clone()), &bare()).unwrap();
        for content in [&b"\0\0\0\0"[..], b"hunter2\0", b"hunter2\x7f", b"\x1bhunter2"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(live.reread(), Err(SecretError::NotText { .. })), "{content:?}");
            assert_eq!(live.current().expose_secret(), "hunter2");
        }
        fs::write(&path, "hunter3\tbis").unwrap();
        assert!(live.reread().unwrap());
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command_that_closes_it() {
        let room = Room::new();
        for mode in [0o640, 0o604, 0o660, 0o602, 0o644] {
            let path = room.file("token", b"hunter2", mode);
            let error = check(SecretSource::File(path.clone()), &bare()).unwrap_err();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_credential_may_be_readable_for_roots_group_and_for_nobody_else() {
        let room = Room::new();
        let path = room.file("okta-token", b"hunter2\n", 0o440);
        let by_root = fs::metadata(&path).unwrap().uid() == 0;
        let credential = || SecretSource::Credential("okta-token".to_owned());
        assert_eq!(check(credential(), &room.env()).is_ok(), by_root);
        assert_eq!(check(SecretSource::File(path), &room.env()).is_ok(), by_root);
        room.file("okta-token", b"hunter2\n", 0o400);
        assert_eq!(check(credential(), &room.env()).unwrap(), "hunter2");
        room.file("okta-token", b"hunter2\n", 0o444);
        assert!(check(credential(), &room.env()).is_err());
    }

    #[test]
    fn a_missing_credential_explains_the_unit() {
        let room = Room::new();
        for env in [room.env(), bare()] {
            let error = check(SecretSource::Credential("slack-token".to_owned()), &env).unwrap_err();
            assert!(error.contains("LoadCredential=slack-token:"), "{error}");
        }
    }

    #[test]
    fn a_credentials_name_never_leads_out_of_its_directory() {
        let room = Room::new();
        for name in ["", ".", "..", "../etc/shadow", "/etc/shadow", "a/b"] {
            let error = SecretSource::Credential(name.to_owned()).resolve(&room.env()).unwrap_err();
            assert!(matches!(error, SecretError::CredentialName { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_variable_gives_its_trimmed_value() {
        assert_eq!(check(SecretSource::Env("TOKEN".to_owned()), &bare()).unwrap(), "from-env");
        for name in ["OTHER", "", "A=B"] {
            let error = SecretSource::Env(name.to_owned()).resolve(&bare()).unwrap_err();
            assert!(matches!(error, SecretError::NoVariable { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_empty_too_large_not_text_or_no_file_is_refused() {
        let room = Room::new();
        let large = vec![b'x'; MAX_SECRET_BYTES as usize + 1];
        let not_text = b"hunter2\xff".to_vec();
        let pasted = b"\n00token\nsudo systemctl daemon-reload\n".to_vec();
        for (content, expected) in [
            (&b" \n"[..], "is empty"),
            (&large, "is larger than"),
            (&not_text, "is not UTF-8"),
            (&pasted, "has several lines"),
        ] {
            let error = check(SecretSource::File(room.file("s", content, 0o600)), &bare()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let directory = SecretSource::File(room.directory.path().to_owned()).resolve(&bare()).unwrap_err();
        assert!(matches!(directory, SecretError::NotAFile { .. }), "{directory}");
        let missing = SecretSource::File(room.directory.path().join("none")).resolve(&bare()).unwrap_err();
        assert!(matches!(missing, SecretError::Read { .. }), "{missing}");
    }

    #[test]
    fn the_largest_allowed_secret_is_read_whole() {
        let room = Room::new();
        let path = room.file("s", &vec![b'x'; MAX_SECRET_BYTES as usize], 0o600);
        assert_eq!(check(SecretSource::File(path), &bare()).unwrap().len() as u64, MAX_SECRET_BYTES);
    }

    /// A secret that is read from a file which is then changed in some way; what comes of the refusal of the old one.
    fn check_reread(change: impl FnOnce(&Room, &Path)) -> Result<Option<String>, String> {
        let room = Room::new();
        let path = room.file("token", b"hunter2-old\n", 0o600);
        let live = LiveSecret::read(&SecretSource::File(path.clone()), &bare()).unwrap();
        change(&room, &path);
        let (before, replaced) = (live.current(), live.replacement(&"hunter2-old".into()));
        let after = live.current();
        match replaced {
            Ok(Some(new)) => {
                assert_eq!(after.expose_secret(), new.expose_secret());
                assert!(
                    live.replacement(&"hunter2-old".into()).unwrap().is_some(),
                    "the one who was slower hears of it too"
                );
                assert!(live.replacement(&new).unwrap().is_none());
                assert!(!live.reread().unwrap());
                Ok(Some(new.expose_secret().to_owned()))
            }
            other => {
                assert_eq!(after.expose_secret(), before.expose_secret(), "the old one stays");
                other.map(|_| None).map_err(|error| {
                    let text = format!("{error:?} {error}; {}", error.remedy());
                    assert!(!text.contains("hunter2"), "{text}");
                    text
                })
            }
        }
    }

    fn rename_over(room: &Room, path: &Path) {
        fs::rename(room.file("token.new", b"hunter2-new\n", 0o600), path).unwrap();
    }

    #[test]
    fn a_secret_is_replaced_however_its_file_is() {
        let written = |_: &Room, path: &Path| fs::write(path, "hunter2-new").unwrap();
        for replaced in [check_reread(written), check_reread(rename_over)] {
            assert_eq!(replaced.unwrap().as_deref(), Some("hunter2-new"));
        }
        assert_eq!(check_reread(|_, _| {}).unwrap(), None);
        assert_eq!(check_reread(|_, path| fs::write(path, "\n hunter2-old\n\n").unwrap()).unwrap(), None);
    }

    #[test]
    fn a_secret_is_replaced_behind_links_that_are_swapped_as_a_whole() {
        // As a mounted Kubernetes secret: token -> ..data/token, ..data -> a directory of its own for each generation.
        let room = Room::new();
        let root = room.directory.path();
        for (generation, content) in [("..1", "hunter2-old"), ("..2", "hunter2-new")] {
            fs::create_dir(root.join(generation)).unwrap();
            room.file(&format!("{generation}/token"), content.as_bytes(), 0o400);
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/token", root.join("token")).unwrap();
        let live = LiveSecret::read(&SecretSource::File(root.join("token")), &bare()).unwrap();
        assert!(!live.reread().unwrap());
        symlink("..2", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        assert!(live.reread().unwrap());
        assert_eq!(live.current().expose_secret(), "hunter2-new");
        // The old generation is taken away later, which changes nothing.
        fs::remove_dir_all(root.join("..1")).unwrap();
        assert!(!live.reread().unwrap());
    }

    #[test]
    fn what_is_no_secret_leaves_the_old_one_in_force_and_is_told() {
        let truncated = check_reread(|_, path| fs::write(path, "").unwrap());
        assert!(truncated.unwrap_err().contains("is empty"));
        let gone = check_reread(|_, path| fs::remove_file(path).unwrap());
        assert!(gone.unwrap_err().contains("cannot be read"));
        let open = check_reread(|room, path| fs::rename(room.file("new", b"hunter2-new", 0o644), path).unwrap());
        assert!(open.unwrap_err().contains("is open to others"));
        let dangling = check_reread(|room, path| {
            fs::remove_file(path).unwrap();
            symlink(room.directory.path().join("none"), path).unwrap();
        });
        assert!(dangling.unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn what_somebody_else_has_read_anew_counts_even_when_the_file_is_gone_by_then() {
        let room = Room::new();
        let path = room.file("token", b"hunter2-old", 0o600);
        let live = LiveSecret::read(&SecretSource::File(path.clone()), &bare()).unwrap();
        rename_over(&room, &path);
        assert!(live.reread().unwrap());
        fs::remove_file(&path).unwrap();
        let new = live.replacement(&"hunter2-old".into()).unwrap().unwrap();
        assert_eq!(new.expose_secret(), "hunter2-new");
        assert!(live.replacement(&new).is_err());
    }

    #[test]
    fn a_credential_is_read_again_where_systemd_puts_it() {
        let room = Room::new();
        room.file("okta-token", b"hunter2-old", 0o400);
        let live = LiveSecret::read(&SecretSource::Credential("okta-token".to_owned()), &room.env()).unwrap();
        fs::rename(room.file("new", b"hunter2-new", 0o400), room.directory.path().join("okta-token")).unwrap();
        assert!(live.reread().unwrap());
        assert!(!format!("{live:?}").contains("hunter2"), "{live:?}");
    }

    #[test]
    fn a_secret_from_nowhere_stays() {
        let live = LiveSecret::from("hunter2");
        assert!(!live.reread().unwrap());
        assert!(live.replacement(&"hunter2".into()).unwrap().is_none());
    }

    #[test]
    fn only_a_key_may_have_several_lines() {
        let room = Room::new();
        let path = room.file("key", b"text\n-----BEGIN PRIVATE KEY-----\nhunter2\n", 0o600);
        let source = SecretSource::File(path.clone());
        assert!(matches!(source.resolve(&bare()), Err(SecretError::SeveralLines { .. })));
        let live = LiveSecret::read_key(&source, &bare()).unwrap();
        assert_eq!(live.current().expose_secret(), "text\n-----BEGIN PRIVATE KEY-----\nhunter2");
        room.file("key", b"a\nb", 0o600);
        assert!(live.reread().unwrap(), "it is read in the same form again");
        assert_eq!(live.current().expose_secret(), "a\nb");
        room.file("key", &vec![b'x'; MAX_KEY_BYTES as usize + 1], 0o600);
        assert!(matches!(live.reread(), Err(SecretError::TooLarge { most: MAX_KEY_BYTES, .. })));
        assert_eq!(live.current().expose_secret(), "a\nb", "what was good stays");
        assert!(!format!("{live:?}").contains("hunter2"));
    }

    #[test]
    fn debug_of_the_environment_shows_no_variable() {
        assert_eq!(format!("{:?}", bare()), "SecretEnv { credentials_directory: None, .. }");
    }
}
