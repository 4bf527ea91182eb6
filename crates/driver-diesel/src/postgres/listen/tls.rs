//! TLS of the listening connection, by the rules that libpq has for the pool's.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::parameters::{Parameters, Surroundings};

/// What a server is asked to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nothing: the connection is encrypted, whoever is at its other end.
    Nothing,
    /// That its certificate was given by an authority that we know.
    Authority,
    /// The same, and that it is for the host's name.
    Host,
}

/// Whether a connection is encrypted; the words of `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
}

/// TLS as asked for.
pub(super) struct Tls {
    pub(super) mode: Mode,
    pub(super) config: Arc<ClientConfig>,
    /// Without the question of plain PostgreSQL before it.
    pub(super) direct: bool,
}

impl Tls {
    pub(super) fn of(all: &Parameters, around: &Surroundings) -> Result<Self, String> {
        let named = all.get("sslrootcert");
        let system = named == Some("system");
        let word = match (all.get("sslmode"), all.get("requiressl")) {
            (Some(word), _) => word,
            (None, Some("1")) => "require",
            (None, _) if system => "verify-full",
            (None, _) => "prefer",
        };
        let (mode, asked) = match word {
            "disable" => (Mode::Disable, Check::Nothing),
            "allow" => (Mode::Allow, Check::Nothing),
            "prefer" => (Mode::Prefer, Check::Nothing),
            "require" => (Mode::Require, Check::Nothing),
            "verify-ca" => (Mode::Require, Check::Authority),
            "verify-full" => (Mode::Require, Check::Host),
            other => return Err(format!("the sslmode {other:?} is unknown")),
        };
        if system && asked != Check::Host {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        // On a socket there is no TLS, whatever is asked for.
        if all.get("hostaddr").is_none()
            && super::hosts::hosts(all).iter().all(|host| host.starts_with('/'))
        {
            let config = config(Check::Nothing, RootCertStore::empty(), &versions(all)?, None)?;
            return Ok(Self { mode: Mode::Disable, config: Arc::new(config), direct: false });
        }
        let file = match named {
            Some("system") => None,
            Some(file) => Some(PathBuf::from(file)),
            None => around.at_home(".postgresql/root.crt"),
        };
        let file = file.filter(|file| file.exists());
        let roots = match (&file, system) {
            (_, true) => system_roots()?,
            (Some(file), _) => read_roots(file)?,
            // As nobody could be trusted, nobody is.
            (None, _) if asked != Check::Nothing => {
                return Err(
                    "there is no root certificate file; name one with sslrootcert".to_owned()
                );
            }
            (None, _) => RootCertStore::empty(),
        };
        // Where there is a file of authorities libpq checks against it, whatever the mode.
        let check =
            if file.is_some() && asked == Check::Nothing { Check::Authority } else { asked };
        let revoked = around.at_home(".postgresql/root.crl").filter(|file| file.exists());
        if check != Check::Nothing
            && let Some(revoked) = revoked
        {
            let file = revoked.display();
            return Err(format!(
                "for a listener the list of revoked certificates in {file} is not looked at"
            ));
        }
        let direct = all.get("sslnegotiation") == Some("direct");
        if direct && mode != Mode::Require {
            return Err("sslnegotiation=direct needs sslmode=require or stronger".to_owned());
        }
        let mut config = config(check, roots, &versions(all)?, client_certificate(all, around)?)?;
        config.enable_sni = all.get("sslsni") != Some("0");
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self { mode, config: Arc::new(config), direct })
    }
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn config(
    check: Check,
    roots: RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
    certificate: Option<ClientCertificate>,
) -> Result<ClientConfig, String> {
    let said = |error: &dyn std::fmt::Display| format!("TLS: {error}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = if check == Check::Nothing {
        None
    } else {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Some(verifier.build().map_err(|error| said(&error))?)
    };
    let verifier = Verifier { check, inner, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| said(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match certificate {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| said(&error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Older ones than TLS 1.2 are not spoken, which is libpq's default too.
fn versions(all: &Parameters) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |name: &str, default| match all.get(name) {
        None => Ok(default),
        Some("TLSv1") => Ok(0),
        Some("TLSv1.1") => Ok(1),
        Some("TLSv1.2") => Ok(2),
        Some("TLSv1.3") => Ok(3),
        Some(other) => Err(format!("the {name} {other:?} is unknown")),
    };
    let (least, most) =
        (number("ssl_min_protocol_version", 2)?, number("ssl_max_protocol_version", 3)?);
    let known = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let fit = known.iter().filter(|(version, _)| (least..=most).contains(version));
    let fit: Vec<_> = fit.map(|(_, version)| *version).collect();
    if fit.is_empty() {
        return Err("no version of TLS lies between the two that are asked for".to_owned());
    }
    Ok(fit)
}

fn read_roots(file: &std::path::Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Some that are old or odd are in every system's store.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err("the system has no certificates of authorities".to_owned());
    }
    Ok(roots)
}

fn read_certificates(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| said(&error))?;
    let all: Result<Vec<_>, _> = read.collect();
    match all {
        Ok(all) if all.is_empty() => Err(said(&"it holds no certificate")),
        Ok(all) => Ok(all),
        Err(error) => Err(said(&error)),
    }
}

/// The certificate that this program shows, if there is one.
fn client_certificate(
    all: &Parameters,
    around: &Surroundings,
) -> Result<Option<ClientCertificate>, String> {
    let file = |name: &str, default: &str| {
        all.get(name).map(PathBuf::from).or_else(|| around.at_home(default))
    };
    let certificate = file("sslcert", ".postgresql/postgresql.crt").filter(|file| file.exists());
    if all.get("sslcertmode") == Some("disable") {
        return Ok(None);
    }
    let Some(certificate) = certificate else { return Ok(None) };
    let Some(key) = file("sslkey", ".postgresql/postgresql.key") else { return Ok(None) };
    let chain = read_certificates(&certificate)?;
    // Not what it holds.
    let key = PrivateKeyDer::from_pem_file(&key)
        .map_err(|error| format!("the key in {} cannot be read: {error}", key.display()))?;
    Ok(Some((chain, key)))
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, when all else is well.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) if self.check == Check::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::parameters::tests::nowhere;
    use super::*;

    fn of(query: &str) -> Result<Tls, String> {
        let url = Url::parse(&format!("postgres://db/jobs?{query}")).expect("parses");
        Tls::of(&Parameters::of(&url, &nowhere())?, &nowhere())
    }

    #[test]
    fn every_sslmode_is_what_it_says() {
        for (query, mode) in [
            ("", Mode::Prefer),
            ("sslmode=disable", Mode::Disable),
            ("sslmode=allow", Mode::Allow),
            ("sslmode=prefer", Mode::Prefer),
            ("sslmode=require", Mode::Require),
            ("requiressl=1", Mode::Require),
        ] {
            assert_eq!(of(query).map(|tls| tls.mode), Ok(mode), "{query}");
        }
    }

    #[test]
    fn on_a_socket_nothing_is_encrypted_whatever_is_asked_for() {
        for query in ["host=/run/postgresql&sslmode=require", "host=/a,/b&sslmode=verify-full"] {
            let url = Url::parse(&format!("postgres:///jobs?{query}")).expect("parses");
            let all = Parameters::of(&url, &nowhere()).expect("valid");
            assert_eq!(Tls::of(&all, &nowhere()).map(|tls| tls.mode), Ok(Mode::Disable), "{query}");
        }
        for query in ["host=/a,db", "host=/tmp&hostaddr=10.0.0.1"] {
            let mode = of(&format!("{query}&sslmode=require")).map(|tls| tls.mode);
            assert_eq!(mode, Ok(Mode::Require), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_proven_is_refused() {
        for (query, word) in [
            ("sslmode=verify-ca", "root certificate"),
            ("sslmode=verify-full&sslrootcert=/nowhere/root.crt", "root certificate"),
            ("sslmode=required", "unknown"),
            ("sslmode=require&sslrootcert=system", "verify-full"),
            ("sslmode=prefer&sslnegotiation=direct", "direct"),
            ("ssl_min_protocol_version=SSLv3", "unknown"),
            ("ssl_max_protocol_version=TLSv1.1", "no version"),
        ] {
            let error = of(query).map(|tls| tls.mode).expect_err(query);
            assert!(error.contains(word), "{query}: {error}");
        }
    }
}
