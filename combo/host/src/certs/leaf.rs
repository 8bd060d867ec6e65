//! A certificate -> its names, dates, issuer and subject (RFC 5280). Pure; what cannot be read is an error, never a panic.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, X509Name},
};

use super::names::Name;

/// What is looked at in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Those that hosts may have; if it says none, the one in its subject.
    pub(crate) names: Vec<Name>,
    /// From when on and until when it holds, in seconds since 1970.
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// Who has signed it, for people to read.
    pub(crate) issuer: String,
    /// It may sign others.
    pub(crate) is_authority: bool,
}

/// Whose certificate a client has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    /// RFC 4514.
    pub(crate) subject: String,
    /// Mail addresses, hosts, URIs and IP addresses, in this order of their kinds.
    pub(crate) names: Vec<String>,
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

impl Leaf {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = parse(der)?;
        let names = match alternatives(&certificate) {
            Some(names) => {
                let hosts = names.iter().filter_map(|name| match name {
                    GeneralName::DNSName(host) => Name::in_certificate(host),
                    _ => None,
                });
                hosts.collect()
            }
            None => {
                let common = certificate.subject().iter_common_name().next();
                common.and_then(|name| Name::in_certificate(name.as_str().ok()?)).into_iter().collect()
            }
        };
        let validity = certificate.validity();
        Some(Self {
            names,
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
            issuer: in_short(certificate.issuer()),
            is_authority: certificate.is_ca(),
        })
    }
}

impl Holder {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = parse(der)?;
        let mut names: Vec<(u8, String)> = Vec::new();
        for name in alternatives(&certificate).unwrap_or_default() {
            match name {
                GeneralName::RFC822Name(mail) => names.push((0, (*mail).to_owned())),
                GeneralName::DNSName(host) => names.push((1, (*host).to_owned())),
                GeneralName::URI(uri) => names.push((2, (*uri).to_owned())),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|ip| (3, ip))),
                _ => {}
            }
        }
        names.sort_by_key(|(kind, _)| *kind);
        let names = names.into_iter().map(|(_, name)| name).collect();
        Some(Self { subject: in_full(certificate.subject()), names })
    }
}

fn alternatives<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [GeneralName<'a>]> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    Some(&names.value.general_names)
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|v4| std::net::Ipv4Addr::from(v4).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|v6| std::net::Ipv6Addr::from(v6).to_string());
    v4.or_else(|_| v6()).ok()
}

/// The certificate whose key is the server's first, each followed by the one that has signed it. Others, which nobody
/// asks for, stay behind.
pub(crate) fn in_order(mut chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let first_is_it = chain.first().and_then(parse).is_some_and(|first| !first.is_ca());
    if chain.len() < 2 || first_is_it && chain.len() == 2 {
        return chain;
    }
    // By subject and issuer alone: whoever connects checks the signatures.
    let known: Option<Vec<(Vec<u8>, Vec<u8>, bool)>> = chain
        .iter()
        .map(|der| {
            let one = parse(der)?;
            Some((one.subject().as_raw().to_vec(), one.issuer().as_raw().to_vec(), one.is_ca()))
        })
        .collect();
    let Some(known) = known else { return chain };
    let signs_others = |at: usize| {
        known.iter().enumerate().any(|(other, (_, issuer, _))| other != at && *issuer == known[at].0)
    };
    let all = || 0..known.len();
    let leaf = all().find(|at| !known[*at].2).or_else(|| all().find(|at| !signs_others(*at))).unwrap_or(0);
    let mut order = vec![leaf];
    while let Some(next) =
        all().find(|at| !order.contains(at) && known[*at].0 == known[order[order.len() - 1]].1)
    {
        order.push(next);
    }
    order.extend(all().filter(|at| !order.contains(at)).collect::<Vec<_>>());
    order.into_iter().map(|at| std::mem::replace(&mut chain[at], CertificateDer::from(Vec::new()))).collect()
}

/// The organization and the common name, or what there is.
fn in_short(name: &X509Name<'_>) -> String {
    let organization = name.iter_organization().next().and_then(|value| value.as_str().ok());
    let common = name.iter_common_name().next().and_then(|value| value.as_str().ok());
    match (organization, common) {
        (Some(organization), Some(common)) if organization != common => format!("{organization} {common}"),
        (Some(one), _) | (None, Some(one)) => one.to_owned(),
        (None, None) => in_full(name),
    }
}

/// A name as RFC 4514 writes it: the most specific part first, `CN=Ann,O=Example`.
fn in_full(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

/// The names of attribute types of RFC 4514, section 3, and the mail address, which many certificates have.
const TYPES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|(known, _)| *known == kind);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(value)) => format!("{name}={}", escaped(value)),
        _ => {
            let value = attribute.attr_value();
            let mut text = format!("{}=#", known.map_or(&*kind, |(_, name)| name));
            // The whole encoding, of which the parser gives the content.
            for byte in encoded(value.header.tag().0, value.data) {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

/// A primitive value in DER.
fn encoded(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut der = vec![(tag & 0x1f) as u8];
    let length = content.len().to_be_bytes();
    let skip = length.iter().take_while(|byte| **byte == 0).count();
    match content.len() {
        short @ 0..0x80 => der.push(short as u8),
        _ => {
            der.push(0x80 | (length.len() - skip) as u8);
            der.extend(&length[skip..]);
        }
    }
    der.extend(content);
    der
}

/// RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '\0' => text.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
        string::Ia5String,
    };

    use super::*;

    fn params(common: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params
    }

    fn signed(params: &CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    #[test]
    fn a_certificate_says_its_names_and_dates() {
        let mut made = params("not.a.name.then", &["a.org", "*.A.org", "192.0.2.1"]);
        made.not_before = rcgen::date_time_ymd(2026, 1, 1);
        made.not_after = rcgen::date_time_ymd(2026, 4, 1);
        made.distinguished_name.push(DnType::OrganizationName, "Example");
        let leaf = Leaf::read(&signed(&made)).expect("a certificate");
        let names: Vec<_> = leaf.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.org", "*.a.org"]);
        assert_eq!((leaf.from, leaf.until), (1_767_225_600, 1_775_001_600));
        assert_eq!(leaf.issuer, "Example not.a.name.then");
        let old = Leaf::read(&signed(&params("old.org", &[]))).expect("a certificate");
        assert_eq!(old.names, [Name::Exact("old.org".into())]);
        assert_eq!(Leaf::read(&CertificateDer::from(vec![0x30, 3, 1])), None);
    }

    #[test]
    fn a_holder_is_written_as_in_rfc_4514() {
        for (kind, value, expected) in [
            (DnType::OrganizationName, "Sue, Grabbit and Runn", r"O=Sue\, Grabbit and Runn,CN=x"),
            (DnType::OrganizationName, " # a ", r"O=\ # a\ ,CN=x"),
            (DnType::OrganizationName, r##"#a"b\c"##, r##"O=\#a\"b\\c,CN=x"##),
            (DnType::OrganizationalUnitName, "Zürich", "OU=Zürich,CN=x"),
            (DnType::CustomDnType(vec![2, 5, 4, 5]), "Hi", "2.5.4.5=#0c024869,CN=x"),
        ] {
            let mut made = params("x", &[]);
            made.distinguished_name.push(kind, value);
            assert_eq!(Holder::read(&signed(&made)).expect("a holder").subject, expected);
        }
    }

    #[test]
    fn a_holder_has_the_names_in_its_certificate() {
        let mut made = params("x", &["192.0.2.7", "a.org"]);
        let mail = Ia5String::try_from("ann@example.org").expect("a mail address");
        made.subject_alt_names.push(SanType::Rfc822Name(mail));
        let holder = Holder::read(&signed(&made)).expect("a holder");
        assert_eq!(holder.names, ["ann@example.org", "a.org", "192.0.2.7"]);
    }

    #[test]
    fn a_chain_is_put_in_order() {
        let authority = |name: &str| {
            let mut made = params(name, &[]);
            made.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            made
        };
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(authority("root"), key()).expect("an authority");
        let middle = CertifiedIssuer::signed_by(authority("middle"), key(), &root).expect("an authority");
        let leaf = params("a.org", &["a.org"]).signed_by(&key(), &middle).expect("a certificate");
        let right = [leaf.der(), middle.der(), root.der()].map(Clone::clone);
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let chain = order.map(|at| right[at].clone()).to_vec();
            assert_eq!(in_order(chain), right, "{order:?}");
        }
        assert_eq!(in_order(vec![right[1].clone(), right[0].clone()]), right[..2]);
        // As `openssl req -x509` makes it, for itself.
        assert_eq!(in_order(vec![right[2].clone()]), right[2..]);
        let broken = vec![CertificateDer::from(vec![1]), right[0].clone(), right[1].clone()];
        assert_eq!(in_order(broken.clone()), broken);
    }
}
