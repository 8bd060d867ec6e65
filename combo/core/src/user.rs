//! Who a combo becomes once it listens: a user, and a group if wanted, as a string. Parsing only;
//! whether there is such a user is found out at the start.
//!
//! | user | becomes |
//! | --- | --- |
//! | `www` | the user of this name, in the group that the system has for it |
//! | `www:web` | the same, in the group `web` |
//! | `1000`, `1000:1000` | by number; one that the system has no name for needs a group beside it |
//!
//! Digits alone are always a number. With each, the supplementary groups are those of the user.

use std::{fmt, str::FromStr};

/// A parsed user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub user: Id,
    /// The group, where it is not the user's own.
    pub group: Option<Id>,
}

/// A user or a group. Never root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// By name.
    Name(String),
    /// By number.
    Number(u32),
}

/// What is wrong with a user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is said of the user.
    Empty,
    /// There is a colon and no group after it.
    NoGroup,
    /// The user or the group is root.
    Root,
    /// A number that no user or group has.
    Number(String),
    /// A character that no name has in it, or not there.
    Character(char),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it names nobody; say a name or a number, as `www`"),
            Self::NoGroup => f.write_str("after `:` there is no group"),
            Self::Root => f.write_str("to become root is to give up nothing"),
            Self::Number(said) => write!(f, "`{said}` is not a number from 1 to 4294967294"),
            Self::Character(c) => write!(f, "`{}` does not stand there in a name", c.escape_debug()),
        }
    }
}

impl std::error::Error for Fault {}

impl FromStr for User {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        let (user, group) = match said.split_once(':') {
            None => (said, None),
            Some((_, "")) => return Err(Fault::NoGroup),
            Some((user, group)) => (user, Some(group)),
        };
        Ok(Self { user: id(user)?, group: group.map(id).transpose()? })
    }
}

fn id(said: &str) -> Result<Id, Fault> {
    let Some(first) = said.chars().next() else { return Err(Fault::Empty) };
    if said.bytes().all(|byte| byte.is_ascii_digit()) {
        return match said.parse() {
            Ok(0) => Err(Fault::Root),
            // The last of them is how one says "as it is" to the system.
            Err(_) | Ok(u32::MAX) => Err(Fault::Number(said.to_owned())),
            Ok(number) => Ok(Id::Number(number)),
        };
    }
    let wrong = |c: &char| c.is_whitespace() || c.is_control() || [':', '/', ',', '"', '\''].contains(c);
    if let Some(c) = said.chars().find(wrong).or(Some(first).filter(|c| ['-', '+', '~'].contains(c))) {
        return Err(Fault::Character(c));
    }
    if said == "root" { Err(Fault::Root) } else { Ok(Id::Name(said.to_owned())) }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// As it was said.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user)?;
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(said: &str, expected: Result<&User, &Fault>) {
        assert_eq!(said.parse::<User>().as_ref(), expected, "{said}");
    }

    #[test]
    fn a_user_is_a_name_or_a_number_and_so_is_a_group() {
        let (name, number) = (|name: &str| Id::Name(name.into()), Id::Number);
        for (said, user, group) in [
            ("www", name("www"), None),
            ("www-data:web", name("www-data"), Some(name("web"))),
            ("1000", number(1000), None),
            ("1000:www", number(1000), Some(name("www"))),
            ("www:4294967294", name("www"), Some(number(4_294_967_294))),
            ("_ntp", name("_ntp"), None),
            ("0x1", name("0x1"), None),
            ("web.app$", name("web.app$"), None),
        ] {
            check(said, Ok(&User { user, group }));
        }
    }

    #[test]
    fn what_is_nobody_or_root_is_none() {
        for (said, fault) in [
            ("", Fault::Empty),
            (":www", Fault::Empty),
            ("www:", Fault::NoGroup),
            (":", Fault::NoGroup),
            ("root", Fault::Root),
            ("0", Fault::Root),
            ("000:www", Fault::Root),
            ("www:root", Fault::Root),
            ("www:0", Fault::Root),
            ("4294967295", Fault::Number("4294967295".into())),
            ("www:99999999999", Fault::Number("99999999999".into())),
            ("www web", Fault::Character(' ')),
            ("www:web:x", Fault::Character(':')),
            ("-1", Fault::Character('-')),
            ("+0", Fault::Character('+')),
            ("a\0", Fault::Character('\0')),
            ("/etc/passwd", Fault::Character('/')),
        ] {
            check(said, Err(&fault));
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(said in "\\PC{0,6}(:\\PC{0,6})?") {
            if let Ok(user) = said.parse::<User>() {
                prop_assert_eq!(user.to_string().parse::<User>(), Ok(user));
            }
        }
    }
}
