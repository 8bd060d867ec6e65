//! The path of a certificate: order -> folder -> found -> shelf -> handshake.
//!
//! | file | takes | gives |
//! | --- | --- | --- |
//! | [`acme`] | what a folder asks for | files in it |
//! | [`found`] | a folder | key and certificate of each host in it, or what is broken |
//! | [`leaf`] | a certificate | names, dates, issuer, subject |
//! | [`names`] | what certificates are for | the one for a host |
//! | [`shelf`] | what was found | what handshakes take from |
//! | [`noticed`] | a change on the disk | the shelf, changed |
//!
//! [`dev`] makes certificates for the machine that it is developed on; [`challenges`] proves that names are ours.

#[cfg(feature = "acme")]
pub(crate) mod acme;
pub(crate) mod challenges;
pub(crate) mod dev;
pub(crate) mod found;
pub(crate) mod leaf;
pub(crate) mod names;
pub(crate) mod noticed;
pub(crate) mod shelf;
