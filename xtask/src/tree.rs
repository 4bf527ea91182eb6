use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::Result;

/// How many files the tree has.
const FILES: usize = 300;

/// The folders of the tree. `a-b` sorts before `a/...` by bytes and after it by path components,
/// so it tells the two orders apart.
const FOLDERS: [&str; 6] = [".", "a", "a-b", "a/deep er", "a/.hidden", "ünï/日本"];

/// What the names of the files look like; those that `sha256sum` would escape are left out.
const NAMES: [&str; 7] =
    ["plain", "with space", "-dash", ".hidden", "per%20cent", "quote's \"", "straße 東京 🦀"];

/// The largest of the usual files and of the few large ones, in bytes.
const USUAL: usize = 48 * 1024;
const LARGE: usize = 3 * 1024 * 1024;

/// A tree of files with random content.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    paths: Vec<PathBuf>,
}

impl Tree {
    /// Grows the tree from a seed, so that one that shows a fault can be grown again.
    pub(crate) fn grow(root: &Path, seed: u64) -> Result<Self> {
        let mut random = Rng::with_seed(seed);
        let mut paths = Vec::with_capacity(FILES);
        for number in 0..FILES {
            let folder = match FOLDERS[number % FOLDERS.len()] {
                "." => root.to_path_buf(),
                folder => root.join(folder),
            };
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("{}{number}", NAMES[number % NAMES.len()]));
            fs::write(&path, content(&mut random, number))?;
            paths.push(path);
        }
        paths.sort_by(|a, b| bytes(a).cmp(bytes(b)));
        Ok(Self { root: root.to_path_buf(), paths })
    }

    /// The directory that holds the tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All files, sorted by the bytes of their paths.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Takes every permission from one file in the middle and answers its path.
    pub(crate) fn forbid_one(&self) -> Result<&Path> {
        let path = &self.paths[FILES / 2];
        fs::set_permissions(path, Permissions::from_mode(0o000))?;
        Ok(path)
    }
}

/// Every tenth file is empty and every hundredth large.
fn content(random: &mut Rng, number: usize) -> Vec<u8> {
    let length = match number {
        number if number % 10 == 0 => 0,
        number if number % 100 == 1 => LARGE,
        _ => random.usize(0..=USUAL),
    };
    let mut content = vec![0; length];
    random.fill(&mut content);
    content
}

fn bytes(path: &Path) -> &[u8] {
    AsRef::<OsStr>::as_ref(path).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::{FILES, Tree};

    #[test]
    fn a_tree_has_empty_files_and_is_sorted_by_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::grow(directory.path(), 7).unwrap();
        assert_eq!(tree.paths().len(), FILES);
        assert!(tree.paths().iter().any(|path| path.metadata().unwrap().len() == 0));
        let place = |part: &str| {
            let named = |path: &std::path::PathBuf| path.to_string_lossy().contains(part);
            tree.paths().iter().position(named).unwrap()
        };
        assert!(place("/a-b/") < place("/a/"));
    }
}
