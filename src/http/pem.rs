//! Certificates and keys in PEM, as administrators hand them over: several in one file, text around them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Identity;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use zeroize::Zeroizing;

/// What is wrong with a key that needs a passphrase.
const ENCRYPTED: &str = "it is encrypted with a passphrase";
/// What to do about one.
pub const TAKE_PASSPHRASE_OFF: &str = "take the passphrase off (openssl pkey -in KEY -out PLAIN), and protect the file by its \
                                       mode or as an encrypted systemd credential";
/// The most bytes of a file of certificates; the bundle of a whole operating system has a quarter of a megabyte.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Certificates that cannot be used.
#[derive(Debug, Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device, or far too large.
    #[error("{} is not a file of certificates", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Whoever may write to it decides whom the daemon believes.
    #[error("everybody may change {} (mode {mode:04o}), and it decides whom the daemon believes", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no certificate in it.
    #[error("{} holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// One of them is damaged.
    #[error("certificate {number} in {} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
    },
}

impl PemError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("put it there, or name the right file instead of {}", path.display())
            }
            Self::Read { path, .. } => {
                format!("make {} readable for the user that runs okta-responder", path.display())
            }
            Self::NotAFile { .. } => "name a file with one certificate in PEM or several".to_owned(),
            Self::Exposed { path, .. } => format!("chmod o-w {}", path.display()),
            Self::Empty { path } => format!(
                "if it is in DER, turn it into PEM: openssl x509 -inform der -in {0} -out {0}.pem",
                path.display()
            ),
            Self::Damaged { .. } => "take it from its source again, or leave it out".to_owned(),
        }
    }
}

/// Reads every certificate of a file, and makes sure of each that it is one.
///
/// # Errors
/// When the file cannot be read, holds none, or holds a damaged one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = read(path)?;
    let mut found = Vec::new();
    let mut check = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let damaged = || PemError::Damaged { path: path.to_owned(), number: found.len() + 1 };
        let certificate = certificate.map_err(|_| damaged())?;
        check.add(certificate.clone()).map_err(|_| damaged())?;
        found.push(certificate);
    }
    if found.is_empty() { Err(PemError::Empty { path: path.to_owned() }) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::Read { path: path.to_owned(), source };
    // A pipe would be waited for, so the kind is looked at before it is opened.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(PemError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(PemError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PemError::NotAFile { path: path.to_owned() });
    }
    Ok(bytes)
}

/// A certificate of ours with its key, by which a service or a gateway knows us. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ClientIdentity(Identity);

impl ClientIdentity {
    /// Joins a chain (our certificate first) and the private key of its first certificate: PEM, PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// When the chain cannot be read, or the key is none of these, or another certificate's. Nothing of the key is in it.
    pub fn new(chain: &Path, key: &SecretString) -> Result<Self, IdentityError> {
        let chain_of = certificates(chain)?;
        // Made anew from what was understood, because the files may hold more than the two.
        let mut joined = the_key(key)?;
        for certificate in &chain_of {
            joined.push_str(&block("CERTIFICATE", certificate));
        }
        let identity = Identity::from_pem(joined.as_bytes()).map_err(|_| IdentityError::Key("it is damaged"))?;
        // Whether the key fits is found out when both are put to use.
        let fits = reqwest::Client::builder().no_proxy().tls_certs_only([]).identity(identity.clone()).build();
        fits.map_err(|_| match chain_of.first() {
            Some(first) if is_version_1(first) => IdentityError::Version1 { path: chain.to_owned() },
            _ => IdentityError::Mismatch { path: chain.to_owned() },
        })?;
        Ok(Self(identity))
    }

    pub(super) fn identity(&self) -> Identity {
        self.0.clone()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// A client certificate that cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] PemError),
    /// The key.
    #[error("this is not a private key that can be used: {0}")]
    Key(&'static str),
    /// The two do not belong together.
    #[error("the key is not that of the first certificate in {}, or of a kind that TLS does not know", .path.display())]
    Mismatch {
        /// The chain.
        path: PathBuf,
    },
    /// A certificate of an old form, which TLS here does not take.
    #[error("the first certificate in {} is of version 1, and TLS takes those of version 3 alone", .path.display())]
    Version1 {
        /// The chain.
        path: PathBuf,
    },
}

impl IdentityError {
    /// Whether it is the key that has to be looked at, rather than the chain.
    pub fn is_about_key(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Mismatch { .. })
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Chain(error) => error.remedy(),
            Self::Key(ENCRYPTED) => TAKE_PASSPHRASE_OFF.to_owned(),
            Self::Version1 { .. } => {
                "have it made with extensions: openssl x509 -req makes version 1 unless -extfile names some".to_owned()
            }
            Self::Key(_) => {
                "write the key as unencrypted PEM: -----BEGIN PRIVATE KEY----- (PKCS#8), RSA PRIVATE KEY (PKCS#1) or \
                 EC PRIVATE KEY (SEC1)"
                    .to_owned()
            }
            Self::Mismatch { path } => {
                format!(
                    "put the certificate of this key first in {}, behind it those that lead to its CA",
                    path.display()
                )
            }
        }
    }
}

/// Whether a certificate is of version 1: the version, which stands first in what is signed, is left out (RFC 5280, 4.1).
fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    // What is signed lies in the outer sequence, and is a sequence itself.
    let inside = |der: &[u8]| -> Option<Vec<u8>> {
        let [0x30, length, rest @ ..] = der else { return None };
        let more = if *length < 0x80 { 0 } else { usize::from(length & 0x7f) };
        rest.get(more..).map(<[u8]>::to_vec)
    };
    let first = inside(certificate).and_then(|signed| inside(&signed)).and_then(|fields| fields.first().copied());
    // The number of the certificate, where the version (context tag 0) would stand.
    first == Some(0x02)
}

/// The one private key in a text, as PEM of nothing else.
fn the_key(text: &SecretString) -> Result<Zeroizing<String>, IdentityError> {
    let text = text.expose_secret();
    // The headers of old encrypted keys (RFC 1421) are no damage.
    if text.contains("Proc-Type: 4,ENCRYPTED") || text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        return Err(IdentityError::Key(ENCRYPTED));
    }
    let keys = PrivateKeyDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match keys.map_err(|_| IdentityError::Key("its PEM is damaged"))?.as_slice() {
        [PrivateKeyDer::Pkcs1(key)] => Ok(block("RSA PRIVATE KEY", key.secret_pkcs1_der())),
        [PrivateKeyDer::Sec1(key)] => Ok(block("EC PRIVATE KEY", key.secret_sec1_der())),
        [PrivateKeyDer::Pkcs8(key)] => Ok(block("PRIVATE KEY", key.secret_pkcs8_der())),
        [_, _, ..] => Err(IdentityError::Key("there are several keys")),
        _ => Err(IdentityError::Key(match text {
            text if text.contains("OPENSSH PRIVATE KEY") => "it is a key of SSH",
            text if text.contains("BEGIN CERTIFICATE") => "there is a certificate in its place",
            text if text.contains("PUBLIC KEY") => "it is a public key",
            _ => "there is no private key in PEM",
        })),
    }
}

fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Room(tempfile::TempDir);

    impl Room {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join("file.pem");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    fn pair() -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["responder.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key)
    }

    /// What is wrong with a file of certificates, with its remedy.
    #[track_caller]
    fn check(text: &str, mode: u32, expected: &str) {
        let error = certificates(&Room::new().file(text, mode)).unwrap_err();
        let told = format!("{error}; {}", error.remedy());
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn a_bundle_has_all_its_certificates_and_text_around_them_is_left_out() {
        let (one, two) = (pair().0, pair().0);
        let room = Room::new();
        let path = room.file(&format!("# our root\n{one}\nsubject=CN = second\n{two}"), 0o644);
        assert_eq!(certificates(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_file_without_a_good_certificate_is_told_with_its_place() {
        let (one, key) = pair();
        check("", 0o644, "holds no certificate in PEM");
        check("\u{1}DER", 0o644, "openssl x509 -inform der");
        check(&key.serialize_pem(), 0o600, "holds no certificate");
        check(&format!("{one}{}", block("CERTIFICATE", b"nonsense").as_str()), 0o644, "certificate 2 in");
        check(&one.replace("-----END", "----END"), 0o644, "certificate 1 in");
        check(&one, 0o666, "chmod o-w");
        let room = Room::new();
        assert!(matches!(certificates(room.0.path()), Err(PemError::NotAFile { .. })));
        let missing = certificates(&room.0.path().join("missing.pem")).unwrap_err();
        assert!(missing.to_string().contains("missing.pem") && missing.remedy().contains("put it there"), "{missing}");
    }

    fn identity(chain: &str, key: &str) -> Result<ClientIdentity, String> {
        let key = SecretString::from(key);
        ClientIdentity::new(&Room::new().file(chain, 0o644), &key).map_err(|error| {
            let told = format!("{error} {error:?} {}", error.remedy());
            let secret: Vec<_> =
                key.expose_secret().lines().filter(|line| line.len() > 20 && !line.contains("---")).collect();
            assert!(secret.iter().all(|line| !told.contains(line)), "{told}");
            told
        })
    }

    /// The SEC1 form of an elliptic key, which stands inside of its PKCS#8 form (RFC 5958).
    fn sec1(key: &KeyPair) -> String {
        let pkcs8 = key.serialize_der();
        let begins = pkcs8.windows(2).skip(4).position(|two| two == [0x30, 0x6b] || two == [0x30, 0x77]).unwrap() + 4;
        block("EC PRIVATE KEY", &pkcs8[begins..]).to_string()
    }

    #[test]
    fn a_key_may_have_every_form_and_other_things_around_it() {
        let (chain, key) = pair();
        assert!(identity(&chain, &key.serialize_pem()).is_ok());
        assert!(identity(&chain, &sec1(&key)).is_ok());
        let around = format!("Bag Attributes\n{chain}\n{}", key.serialize_pem());
        assert!(identity(&format!("{around}{}", pair().0), &around).is_ok());
        let shown = format!("{:?}", identity(&chain, &key.serialize_pem()).unwrap());
        assert_eq!(shown, "ClientIdentity(…)");
    }

    #[test]
    fn an_rsa_key_may_be_pkcs1() {
        use aws_lc_rs::encoding::AsDer as _;
        use aws_lc_rs::rsa::{KeyPair as RsaKey, KeySize};
        let key = RsaKey::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pkcs8 = pkcs8.as_ref();
        // The inner sequence of PKCS#8 is PKCS#1 (RFC 5958, RFC 8017): behind the 26 bytes of head.
        let pkcs1 = block("RSA PRIVATE KEY", &pkcs8[26..]).to_string();
        let pair = KeyPair::try_from(pkcs8).unwrap();
        let chain = CertificateParams::new(vec!["r".to_owned()]).unwrap().self_signed(&pair).unwrap().pem();
        assert!(identity(&chain, &pkcs1).is_ok());
    }

    /// Made with `openssl x509 -req` without an extension file.
    const VERSION_1: &str = "\
        -----BEGIN CERTIFICATE-----\n\
        MIIBNDCB2wIUOWi+jAFpWmV9lhX2rLbaDpwRKa8wCgYIKoZIzj0EAwIwHDEaMBgG\n\
        A1UEAwwRcmVzcG9uZGVyLmV4YW1wbGUwIBcNMjYxMTIyMDQ1NzQ3WhgPMjEwOTAx\n\
        MTEwNDU3NDdaMBwxGjAYBgNVBAMMEXJlc3BvbmRlci5leGFtcGxlMFkwEwYHKoZI\n\
        zj0CAQYIKoZIzj0DAQcDQgAE9dkbFdBHN/Qjm41JgKXpN3L+DT2fVC6N+3k96VNa\n\
        xgp+QJUGDaqH4MDXsO6S6xz66ZkOKhz8fvMSJ6aYFplyUTAKBggqhkjOPQQDAgNI\n\
        ADBFAiEA76sIxOogXvRyAuTYweV7ViOgr+ZIrSkp/lIaVJt0xhMCIGHqJvtIiFIs\n\
        9NMCnS1yYzuN9b/2Ypu5jH+0DoQOmPDL\n\
        -----END CERTIFICATE-----\n\
    ";

    #[test]
    fn a_certificate_of_version_1_is_told_to_be_one() {
        let told = identity(VERSION_1, &pair().1.serialize_pem()).unwrap_err();
        assert!(told.contains("is of version 1") && told.contains("-extfile"), "{told}");
        assert!(!told.contains("not that of the first certificate"), "{told}");
    }

    #[test]
    fn what_is_no_key_is_told_without_repeating_it() {
        let (chain, key) = pair();
        let pem = key.serialize_pem();
        for (text, expected) in [
            (chain.clone(), "a certificate in its place"),
            (pem.replace("PRIVATE", "ENCRYPTED PRIVATE"), "passphrase"),
            (pem.replace("PRIVATE", "ENCRYPTED PRIVATE"), "openssl pkey -in KEY -out PLAIN"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                 -----END RSA PRIVATE KEY-----\n"
                    .to_owned(),
                "openssl pkey -in KEY -out PLAIN",
            ),
            (pem.replace("PRIVATE", "OPENSSH PRIVATE"), "SSH"),
            (pem.replace("PRIVATE", "PUBLIC"), "public key"),
            (format!("{pem}{pem}"), "several keys"),
            (block("PRIVATE KEY", b"nonsense-nonsense-nonsense").to_string(), "not that of the first certificate"),
            ("a password".to_owned(), "no private key in PEM"),
            (KeyPair::generate().unwrap().serialize_pem(), "not that of the first certificate"),
        ] {
            let told = identity(&chain, &text).unwrap_err();
            assert!(told.contains(expected), "{expected}: {told}");
        }
        assert!(identity("", &pem).unwrap_err().contains("holds no certificate"));
    }
}
