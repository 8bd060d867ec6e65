//! what is kept, what was said of the authority -> an account there. Made once for each directory; saying so
//! agrees to the terms of service of the authority.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use combo_core::endpoint::Issuer;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::Client,
    directory,
    failure::{Failure, nonced},
    notes::Notes,
};

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    email: Option<String>,
    /// Its URL and its key.
    credentials: Value,
}

/// The account at the issuer's directory: the one that is kept, or a new one.
pub(super) async fn account(notes: &Notes, issuer: &Issuer, client: &Client) -> Result<Account, Failure> {
    let directory = directory(&issuer.authority);
    let unkept = |error| Failure::ours(format!("its account cannot be kept: {error}"));
    let builder = || Account::builder_with_http(Box::new(client.clone()));
    if let Some(kept) = notes.account::<Kept>(directory).map_err(unkept)? {
        if let Ok(credentials) = serde_json::from_value::<AccountCredentials>(kept.credentials.clone()) {
            let doing = "its account there cannot be used";
            let account = match builder().from_credentials(credentials).await {
                Ok(account) => account,
                Err(error) => return Err(Failure::of(error, doing)),
            };
            if kept.email != issuer.email {
                let contact = contact(issuer);
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                nonced!(account.update_contacts(&contact)).map_err(|error| Failure::of(error, doing))?;
                let kept = Kept { email: issuer.email.clone(), ..kept };
                notes.keep_account(directory, &kept).map_err(unkept)?;
            }
            return Ok(account);
        }
        tracing::error!("what is kept of the account at `{directory}` has no key; it is moved aside");
        notes.forget_account(directory).map_err(unkept)?;
    }
    let contact = contact(issuer);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let binding = issuer.eab.as_ref().map(|(id, key)| binding(id, key)).transpose()?;
    let made = nonced!(builder().create(&new, directory.to_owned(), binding.as_ref()));
    let (account, credentials) = made.map_err(|error| Failure::of(error, "it gives us no account"))?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| unkept(error.into()))?;
    let kept = Kept { directory: directory.to_owned(), email: issuer.email.clone(), credentials };
    notes.keep_account(directory, &kept).map_err(unkept)?;
    tracing::info!("has an account at `{directory}`: `{}`", account.id());
    Ok(account)
}

fn contact(issuer: &Issuer) -> Vec<String> {
    issuer.email.iter().map(|email| format!("mailto:{email}")).collect()
}

/// The key of an account elsewhere (RFC 8555, section 7.3.4); it is said in base64url.
fn binding(id: &str, key: &str) -> Result<ExternalAccountKey, Failure> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('='));
    let key = key.map_err(|_| Failure::ours(format!("the key of `eab={id},…` is not base64url")))?;
    Ok(ExternalAccountKey::new(id.to_owned(), &key))
}
