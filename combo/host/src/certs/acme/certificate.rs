//! the text of a file -> what its certificate is. Pure.

use instant_acme::CertificateIdentifier;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use super::renewal::Life;
use combo_core::{BoxError, Timestamp};

/// The first certificate of a file.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// What tells it from all others: its authority's key and its serial number (RFC 9773, section 4.1).
    pub(super) id: String,
    pub(super) life: Life,
    pub(super) certificate: CertificateDer<'static>,
}

impl Certificate {
    /// Reads it.
    pub(super) fn read(pem: &[u8]) -> Result<Self, BoxError> {
        let certificate = CertificateDer::from_pem_slice(pem)?;
        let (_, parsed) = X509Certificate::from_der(&certificate)?;
        let instant = |time: ASN1Time| Timestamp::from_second(time.timestamp());
        let validity = parsed.validity();
        let life = Life { from: instant(validity.not_before)?, until: instant(validity.not_after)? };
        let id = CertificateIdentifier::try_from(&certificate).map_or_else(
            // Authorities of a test's own may not say which key they have.
            |_| parsed.raw_serial_as_string().replace(':', ""),
            |id| id.to_string(),
        );
        Ok(Self { id, life, certificate })
    }

    /// By which its authority knows it, if it says which key it was signed with.
    pub(super) fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        CertificateIdentifier::try_from(&self.certificate).ok().map(CertificateIdentifier::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_authority_and_its_number() {
        let authority = KeyPair::generate().expect("a key");
        let mut root = CertificateParams::new(vec![]).expect("parameters");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = Issuer::new(root, authority);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["a.example.com".to_owned()]).expect("parameters");
        params.serial_number = Some(SerialNumber::from_slice(&[1, 2, 3]));
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &root).expect("a certificate");
        let leaf =
            Certificate::read(format!("{}{}", key.serialize_pem(), signed.pem()).as_bytes()).expect("a leaf");
        assert!(leaf.id.ends_with(".AQID") && leaf.identifier().is_some(), "{}", leaf.id);
        assert_eq!(leaf.life.from.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(leaf.life.until.to_string(), "2026-04-01T00:00:00Z");
        params.use_authority_key_identifier_extension = false;
        let signed = params.signed_by(&key, &root).expect("a certificate");
        let leaf = Certificate::read(signed.pem().as_bytes()).expect("a leaf");
        assert_eq!((&*leaf.id, leaf.identifier().is_none()), ("010203", true));
        assert!(
            Certificate::read(key.serialize_pem().as_bytes()).is_err() && Certificate::read(b"").is_err()
        );
    }
}
