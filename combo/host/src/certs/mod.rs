//! The path of a certificate: order -> folder -> handshake.
//!
//! [`acme`] orders what a folder asks for; [`challenges`] proves to the authority that the names are ours.

#[cfg(feature = "acme")]
pub(crate) mod acme;
pub(crate) mod challenges;
