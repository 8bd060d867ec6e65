//! An error: one sentence about what cannot be embedded, and why.

use std::{fmt, io, path::PathBuf};

#[derive(Debug)]
pub(crate) enum Error {
    /// A variable that every build script has.
    NoScript(&'static str),
    NoFolder {
        folder: PathBuf,
        cause: io::Error,
    },
    Name {
        folder: PathBuf,
        name: String,
    },
    Twice {
        name: String,
        folder: PathBuf,
        other: PathBuf,
    },
    Utf8(PathBuf),
    Circle(PathBuf),
    Changed(PathBuf),
    Read {
        path: PathBuf,
        cause: io::Error,
    },
    Write {
        path: PathBuf,
        cause: io::Error,
    },
    Compress {
        path: PathBuf,
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScript(variable) => {
                write!(f, "cannot embed anything outside of a build script: there is no `{variable}`")
            }
            Self::NoFolder { folder, cause } => write!(f, "cannot embed `{}`: {cause}", folder.display()),
            Self::Name { folder, name } => write!(
                f,
                "cannot embed `{}` as `{name}`: say by `named` what it is called, without a slash",
                folder.display()
            ),
            Self::Twice { name, folder, other } => write!(
                f,
                "`{name}` is taken twice: by `{}` and by `{}`; say by `named` what one is called",
                other.display(),
                folder.display()
            ),
            Self::Utf8(path) => write!(f, "cannot embed `{}`: its name is not UTF-8", path.display()),
            Self::Circle(path) => {
                write!(f, "cannot embed `{}`: it leads back to a folder that it is in", path.display())
            }
            Self::Changed(path) => {
                write!(f, "cannot embed `{}`: it has changed meanwhile; build again", path.display())
            }
            Self::Read { path, cause } => write!(f, "cannot read `{}`: {cause}", path.display()),
            Self::Write { path, cause } => write!(f, "cannot write `{}`: {cause}", path.display()),
            Self::Compress { path, cause } => write!(f, "cannot compress `{}`: {cause}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_sentence() {
        #[track_caller]
        fn check(error: &Error, expected: &str) {
            assert_eq!(error.to_string(), expected);
        }
        let path = || PathBuf::from("site/a");
        let cause = || io::Error::other("no");
        check(
            &Error::NoScript("OUT_DIR"),
            "cannot embed anything outside of a build script: there is no `OUT_DIR`",
        );
        check(&Error::NoFolder { folder: path(), cause: cause() }, "cannot embed `site/a`: no");
        check(
            &Error::Name { folder: "..".into(), name: String::new() },
            "cannot embed `..` as ``: say by `named` what it is called, without a slash",
        );
        check(
            &Error::Twice { name: "a".to_owned(), folder: path(), other: "shop/a".into() },
            "`a` is taken twice: by `shop/a` and by `site/a`; say by `named` what one is called",
        );
        check(&Error::Utf8(path()), "cannot embed `site/a`: its name is not UTF-8");
        check(&Error::Circle(path()), "cannot embed `site/a`: it leads back to a folder that it is in");
        check(&Error::Changed(path()), "cannot embed `site/a`: it has changed meanwhile; build again");
        check(&Error::Read { path: path(), cause: cause() }, "cannot read `site/a`: no");
        check(&Error::Write { path: path(), cause: cause() }, "cannot write `site/a`: no");
        check(&Error::Compress { path: path(), cause: cause() }, "cannot compress `site/a`: no");
    }
}
