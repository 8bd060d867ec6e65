//! Makes certificates of P-256 for `host0.example.com` and on, each with its key in a file of its own:
//! `many_certificates COUNT FOLDER`.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode};

use combo_bench::program;
use rcgen::{CertificateParams, DnType, KeyPair};

fn main() -> ExitCode {
    program("many_certificates COUNT FOLDER", |words| {
        let [count, folder] = words else { return None };
        let (count, folder) = (count.parse().ok()?, Path::new(*folder));
        Some(make(count, folder).map(|()| format!("{count} certificates")))
    })
}

fn make(count: usize, folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for number in 0..count {
        let host = format!("host{number}.example.com");
        let mut params = CertificateParams::new(vec![host.clone(), format!("www.{host}")])?;
        params.distinguished_name.push(DnType::CommonName, &*host);
        let key = KeyPair::generate()?;
        let text = format!("{}{}", key.serialize_pem(), params.self_signed(&key)?.pem());
        let mut file = fs::OpenOptions::new();
        let mut file =
            file.write(true).create_new(true).mode(0o600).open(folder.join(format!("{host}.pem")))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(())
}
