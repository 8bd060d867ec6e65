//! Takes what is to be embedded, gives the expression that `combo::embedded!` takes in. Pure.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use crate::{encoding::Encoding, error::Error};

/// A file, and where its compressed forms are.
#[derive(Debug)]
pub(crate) struct Asset {
    /// As clients ask for it. It ends in a slash for a folder with nothing in it.
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    pub(crate) hash: u128,
    pub(crate) len: usize,
    pub(crate) compressed: BTreeMap<Encoding, PathBuf>,
}

/// The whole of it: of type `Embedded`, where that and `Asset` are in scope. It is the folder on disk where
/// there are debug assertions, unless it is always embedded.
pub(crate) fn render(name: &str, folder: &str, always: bool, assets: &[Asset]) -> Result<String, Error> {
    let mut text = format!("// Of `{}`, by `combo-embed`.\n{{\n", folder.escape_debug());
    let mut line = |line: String| writeln!(text, "    {line}").expect("a string can be written to");
    if !always {
        line("#[cfg(debug_assertions)]".to_owned());
        line(format!("const HERE: Embedded = Embedded::on_disk({name:?}, {folder:?});"));
        line("#[cfg(not(debug_assertions))]".to_owned());
    }
    line(format!("const HERE: Embedded = Embedded::in_binary({name:?}, &["));
    for asset in assets {
        let contents = match asset.path.ends_with('/') {
            true => "&[]".to_owned(),
            false => include(&asset.file)?,
        };
        let compressed = |encoding| match asset.compressed.get(&encoding) {
            Some(path) => include(path).map(|bytes| format!("Some({bytes})")),
            None => Ok("None".to_owned()),
        };
        line(format!(
            "    Asset {{ path: {:?}, contents: {contents}, brotli: {}, zstd: {}, gzip: {} }},",
            asset.path,
            compressed(Encoding::Brotli)?,
            compressed(Encoding::Zstd)?,
            compressed(Encoding::Gzip)?,
        ));
    }
    line("]);".to_owned());
    line("HERE".to_owned());
    text.push_str("}\n");
    Ok(text)
}

fn include(path: &std::path::Path) -> Result<String, Error> {
    let path = path.to_str().ok_or_else(|| Error::Utf8(path.to_owned()))?;
    Ok(format!("include_bytes!({path:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_expression() {
        let assets = [
            Asset {
                path: "a\"b.css".to_owned(),
                file: "/s/a\"b.css".into(),
                hash: 0xab,
                len: 3,
                compressed: BTreeMap::from([(Encoding::Zstd, "/o/1.zst".into())]),
            },
            Asset {
                path: "empty/".to_owned(),
                file: "/s/empty".into(),
                hash: 0,
                len: 0,
                compressed: BTreeMap::new(),
            },
        ];
        assert_eq!(
            render("s", "/s", false, &assets).unwrap(),
            r#"// Of `/s`, by `combo-embed`.
{
    #[cfg(debug_assertions)]
    const HERE: Embedded = Embedded::on_disk("s", "/s");
    #[cfg(not(debug_assertions))]
    const HERE: Embedded = Embedded::in_binary("s", &[
        Asset { path: "a\"b.css", contents: include_bytes!("/s/a\"b.css"), brotli: None, zstd: Some(include_bytes!("/o/1.zst")), gzip: None },
        Asset { path: "empty/", contents: &[], brotli: None, zstd: None, gzip: None },
    ]);
    HERE
}
"#
        );
        assert_eq!(
            render("s", "/s", true, &[]).unwrap(),
            r#"// Of `/s`, by `combo-embed`.
{
    const HERE: Embedded = Embedded::in_binary("s", &[
    ]);
    HERE
}
"#
        );
    }
}
