use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

use crate::{Account, Error};

/// Certificates for tests of TLS: an authority, and what it gave to servers and clients.
///
/// The files lie in a directory of their own until this is dropped, and can be read by the user that
/// servers run as.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
    account: Account,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// An authority that gives certificates.
pub struct Authority<'a> {
    by: &'a Certificates,
    name: String,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Makes the directory; servers run as the first of these users that exists.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when there can be none, [`Error::NoAccount`] without such a user.
    pub fn new(users: &[&str]) -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("qudo-tls-")
            .tempdir_in("/tmp")
            .map_err(Error::file("make a directory in", Path::new("/tmp")))?;
        let account = Account::unprivileged(users)?;
        account.own(directory.path())?;
        Ok(Self { directory, account })
    }

    /// Makes an authority of this name.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a file cannot be written.
    pub fn authority(&self, name: &str) -> Result<Authority<'_>, Error> {
        let key = KeyPair::generate().map_err(|error| broken(&error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| broken(&error))?;
        let file = self.write(&format!("{name}.pem"), &certificate.pem())?;
        Ok(Authority { by: self, name: name.to_owned(), file, issuer: Issuer::new(params, key) })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
        // Servers refuse a key that others may read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(Error::file("guard", &path))?;
        self.account.own(&path)?;
        Ok(path)
    }
}

impl Authority<'_> {
    /// The authority's own certificate.
    pub fn certificate(&self) -> &Path {
        &self.file
    }

    /// Gives a certificate for these hosts, which serves a server as well as a client of this name.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a file cannot be written.
    pub fn give(&self, common_name: &str, hosts: &[&str]) -> Result<Pair, Error> {
        let key = KeyPair::generate().map_err(|error| broken(&error))?;
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(|error| broken(&error))?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| broken(&error))?;
        let name = format!("{}-{common_name}", self.name);
        Ok(Pair {
            certificate: self.by.write(&format!("{name}.crt"), &certificate.pem())?,
            key: self.by.write(&format!("{name}.key"), &key.serialize_pem())?,
        })
    }
}

fn broken(error: &rcgen::Error) -> Error {
    Error::Invalid { what: "a certificate".into(), reason: error.to_string() }
}
