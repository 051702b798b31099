//! What TLS needs of the machine: a key and a certificate that belong together and that clients take.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::log::Level;

use super::{Purpose, Surroundings};
use crate::config::{Config, Mistake, Setting, Wrong};
use crate::listen::tls::{Credentials, Flaws, Validity};

/// Looks at both files, where TLS is wanted.
pub(super) fn examine(config: &Config, purpose: Purpose, found: &mut Surroundings) {
    let of_certificate = |wrong| of_file("sslCertificateFile", &config.server.ssl_certificate_file, wrong);
    found.notes.extend(public_key_file(config));
    let validity = match credentials(config) {
        Ok(credentials) => {
            let concern = credentials.as_ref().and_then(|credentials| credentials.concern.clone());
            found.notes.extend(concern.map(|wrong| of_certificate(wrong).to_string()));
            found.credentials = credentials;
            found.credentials.as_ref().map(|credentials| credentials.validity.clone())
        }
        Err((mistakes, validity)) => {
            found.mistakes.extend(mistakes);
            validity
        }
    };
    if let (Purpose::Check, Some((level, wrong))) = (purpose, validity.and_then(|it| it.concern(SystemTime::now()))) {
        match of_certificate(wrong) {
            mistake if level == Level::Error => found.mistakes.push(mistake),
            concern => found.notes.push(concern.to_string()),
        }
    }
}

/// What TLS takes, where it is wanted.
fn credentials(config: &Config) -> Result<Option<Credentials>, (Vec<Mistake>, Option<Validity>)> {
    let (key, certificate) = (&config.server.ssl_key_file, &config.server.ssl_certificate_file);
    let alone = |name, setting, other| {
        let wrong = Wrong::new(format!("is said without {other}"), format!("say {other} too, or neither"));
        (vec![of_file(name, setting, wrong)], None)
    };
    match (key.as_deref(), certificate.as_deref()) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(alone("sslKeyFile", key, "sslCertificateFile")),
        (None, Some(_)) => Err(alone("sslCertificateFile", certificate, "sslKeyFile")),
        (Some(key_file), Some(certificate_file)) => {
            Credentials::read(key_file, certificate_file).map(Some).map_err(|flaws| {
                let Flaws { key: of_key, certificate: of_it, validity } = *flaws;
                let of_key = of_key.map(|wrong| of_file("sslKeyFile", key, wrong));
                let of_it = of_it.map(|wrong| of_file("sslCertificateFile", certificate, wrong));
                (of_key.into_iter().chain(of_it).collect(), validity)
            })
        }
    }
}

fn of_file(name: &str, setting: &Setting<Option<PathBuf>>, wrong: Wrong) -> Mistake {
    let file = setting.as_deref().unwrap_or(Path::new("")).display().to_string();
    Mistake::of_value(setting.origin.clone(), name, &file, wrong)
}

/// Who has the key can be this server.
fn public_key_file(config: &Config) -> Option<String> {
    const OTHERS_READ: u32 = 0o004;
    let setting = &config.server.ssl_key_file;
    let file = setting.as_deref()?;
    let public = fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & OTHERS_READ != 0);
    public.then(|| {
        let file = file.display();
        format!("sslKeyFile = {file} ({}) can be read by every user of this machine: chmod 600 {file}", setting.origin)
    })
}
