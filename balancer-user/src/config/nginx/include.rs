//! The file, and what it includes, as one tree of directives.
//!
//! As with nginx, an included path is relative to the folder of the main file, wherever `include` stands, and each file's
//! braces must add up. Whoever wrote these files is not trusted: their number, sizes and depth are bounded, and only
//! regular files are read. An included file that can't be read, where nginx would stop, is said and left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::read::{self, ReadError};
use super::directive::{Directive, Place};
use super::remarks::Remarks;
use super::syntax::{self, SyntaxError};
use super::{ImportError, glob};

/// One file; a configuration with a thousand servers has some hundred KiB.
const FILE_BYTES: usize = 1 << 20;
/// All files.
const ALL_BYTES: usize = 8 << 20;
/// Files that are read, each as often as it is included.
const FILES: usize = 1024;
/// Directives in all files.
const DIRECTIVES: usize = 100_000;
/// Files that include each other.
const INCLUDE_DEPTH: usize = 8;

/// Blocks whose lines are a table, which nothing here needs.
const TABLES: [&str; 5] = ["types", "map", "geo", "split_clients", "charset_map"];

/// Files of nginx's own, with nothing that concerns connections.
const NGINX_OWN: [&str; 4] = ["mime.types", "fastcgi_params", "scgi_params", "uwsgi_params"];

/// Reads `file` with all that it includes.
pub(super) fn load(file: &Path, remarks: &mut Remarks) -> Result<Vec<Directive>, ImportError> {
    let shown = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let folder = folder(file);
    let mut loader =
        Loader { folder, remarks, bytes: ALL_BYTES, files: FILES, directives: DIRECTIVES, including: vec![] };
    loader.read(file, &shown).map_err(|error| match error {
        FileError::Read(error) => ImportError::Unreadable { file: file.display().to_string(), error },
        FileError::Syntax(SyntaxError { line, message }) => {
            ImportError::NotNginx { file: file.display().to_string(), line, message }
        }
    })
}

/// What paths in the file are relative to.
pub(super) fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

enum FileError {
    Read(ReadError),
    Syntax(SyntaxError),
}

struct Loader<'r> {
    folder: PathBuf,
    remarks: &'r mut Remarks,
    /// What may still be read.
    bytes: usize,
    files: usize,
    directives: usize,
    /// The files that are being read, each included by the one before.
    including: Vec<PathBuf>,
}

impl Loader<'_> {
    fn read(&mut self, path: &Path, shown: &str) -> Result<Vec<Directive>, FileError> {
        let bytes = read::file(path, FILE_BYTES.min(self.bytes)).map_err(FileError::Read)?;
        self.bytes -= bytes.len();
        // nginx doesn't mind what a comment is encoded in.
        let text = String::from_utf8_lossy(&bytes);
        let file: Rc<str> = Rc::from(shown);
        let parsed = syntax::parse(&text, &file, self.directives).map_err(FileError::Syntax)?;
        self.directives -= parsed.count;
        for (line, message) in parsed.repairs {
            self.remarks.push(&Place { file: Rc::clone(&file), line }, message);
        }
        self.including.push(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        let expanded = self.expand(parsed.directives);
        self.including.pop();
        Ok(expanded)
    }

    /// With the contents of files in place of their `include`.
    fn expand(&mut self, directives: Vec<Directive>) -> Vec<Directive> {
        let mut expanded = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.is("include") && directive.block.is_none() {
                expanded.extend(self.include(&directive));
                continue;
            }
            if !TABLES.contains(&directive.name.as_str()) {
                directive.block = directive.block.map(|inner| self.expand(inner));
            }
            expanded.push(directive);
        }
        expanded
    }

    fn include(&mut self, include: &Directive) -> Vec<Directive> {
        let [written] = include.arguments.as_slice() else {
            self.remarks.push(&include.place, "`include` names no file, or more than one; left out");
            return Vec::new();
        };
        let path = self.folder.join(written);
        if path.file_name().is_some_and(|name| NGINX_OWN.iter().any(|own| name == *own)) {
            return Vec::new();
        }
        if !glob::is_pattern(&path) {
            return self.included(&path, &include.place);
        }
        let (paths, is_cut) = glob::files(&path);
        if is_cut {
            let message = format!("`include {written}` names too many files; some are left out");
            self.remarks.push(&include.place, message);
        }
        paths.iter().flat_map(|path| self.included(path, &include.place)).collect()
    }

    fn included(&mut self, path: &Path, place: &Place) -> Vec<Directive> {
        let shown = path.strip_prefix(&self.folder).unwrap_or(path).display().to_string();
        let refusal = if fs::canonicalize(path).is_ok_and(|path| self.including.contains(&path)) {
            Some("it includes itself".to_owned())
        } else if self.including.len() > INCLUDE_DEPTH {
            Some(format!("more than {INCLUDE_DEPTH} files include each other"))
        } else if self.files == 0 {
            Some(format!("more than {FILES} files are included"))
        } else {
            self.files -= 1;
            match self.read(path, &shown) {
                Ok(directives) => return directives,
                Err(FileError::Read(error)) => Some(format!(
                    "{error} (paths are relative to the folder of the imported file, with nginx that of nginx.conf)"
                )),
                Err(FileError::Syntax(error)) => Some(format!("line {}: {}", error.line, error.message)),
            }
        };
        if let Some(why) = refusal {
            self.remarks.push(place, format!("the included {shown} is left out: {why}"));
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves' names in order, and the remarks; the first file is the main one.
    fn loaded(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut remarks = Remarks::default();
        let directives =
            load(&folder.path().join(files[0].0), &mut remarks).unwrap_or_else(|error| panic!("{error}"));
        let mut names = Vec::new();
        leaves(&directives, &mut names);
        (names, remarks.into_list().iter().map(ToString::to_string).collect())
    }

    fn leaves(directives: &[Directive], names: &mut Vec<String>) {
        for directive in directives {
            match &directive.block {
                Some(inner) => leaves(inner, names),
                None => names.push(format!("{}@{}", directive.name, directive.place)),
            }
        }
    }

    #[test]
    fn included_files_stand_where_they_are_included() {
        let (names, remarks) = loaded(&[
            ("nginx.conf", "a;\nhttp { include conf.d/*.conf; include mime.types; b; }"),
            ("conf.d/2.conf", "d;\ninclude snippets/e.conf;"),
            ("conf.d/1.conf", "c;"),
            ("conf.d/3.txt", "x;"),
            ("snippets/e.conf", "e;"),
        ]);
        assert_eq!(
            names,
            [
                "a@nginx.conf:1",
                "c@conf.d/1.conf:1",
                "d@conf.d/2.conf:1",
                "e@snippets/e.conf:1",
                "b@nginx.conf:2"
            ]
        );
        assert!(remarks.is_empty(), "{remarks:?}");
    }

    #[test]
    fn what_cannot_be_included_is_said() {
        let (names, remarks) = loaded(&[
            ("nginx.conf", "include none.conf;\ninclude none/*.conf;\ninclude bad.conf;\ninclude a b;\nz;"),
            ("bad.conf", "a \"b;"),
        ]);
        assert_eq!(names, ["z@nginx.conf:5"]);
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        assert!(
            remarks[0].starts_with("nginx.conf:1: the included none.conf is left out: No such"),
            "{remarks:?}"
        );
        assert!(remarks[1].contains("bad.conf is left out: line 1: a quote"), "{remarks:?}");
        assert!(remarks[2].contains("names no file, or more than one"), "{remarks:?}");
    }

    #[test]
    fn a_cycle_ends_where_it_begins_anew() {
        let (names, remarks) =
            loaded(&[("a.conf", "x; include b.conf;"), ("b.conf", "y; include ./a.conf;")]);
        assert_eq!(names, ["x@a.conf:1", "y@b.conf:1"]);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].contains("it includes itself"), "{remarks:?}");
    }

    #[test]
    fn includes_that_multiply_end_soon() {
        let names: Vec<String> = (0..12).map(|n| format!("{n}.conf")).collect();
        let texts: Vec<String> = (1..13).map(|n| format!("include {n}.conf;\n").repeat(10)).collect();
        let files: Vec<(&str, &str)> =
            names.iter().zip(&texts).map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let (_, remarks) = loaded(&files);
        assert!(remarks.iter().any(|remark| remark.contains("include each other")), "{remarks:?}");
        assert!(remarks.iter().any(|remark| remark.contains("files are included")), "{remarks:?}");
    }

    #[test]
    fn a_file_that_is_no_file_is_refused() {
        for (path, words) in
            [("/nonexistent.conf", "No such file"), ("/", "a directory"), ("/dev/zero", "a device")]
        {
            let error = load(Path::new(path), &mut Remarks::default()).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(path), "{error}");
        }
    }
}
