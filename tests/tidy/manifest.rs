//! A `Cargo.toml` as far as its rules need it: which dependencies stand in which table, by line.
//!
//! Understands the TOML this tree uses: tables, one key a line, inline tables on one line. What it
//! cannot read it reports as a finding of the caller rather than skipping it.

/// What a manifest declares.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) dependencies: Vec<Dependency>,
    /// `[lints] workspace = true`.
    pub(crate) has_workspace_lints: bool,
    /// The name of the package; a manifest may be of a workspace alone.
    pub(crate) package: Option<String>,
}

/// One line of a table of dependencies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// From 1.
    pub(crate) line: usize,
    /// True in `[dev-dependencies]`.
    pub(crate) for_tests: bool,
    /// True if the version is the workspace's.
    pub(crate) inherited: bool,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Manifest {
        let mut manifest = Manifest::default();
        let mut table = String::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                table = name.to_string();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            match (table.as_str(), key) {
                ("package", "name") => manifest.package = Some(value.trim_matches('"').to_string()),
                ("lints", "workspace") => manifest.has_workspace_lints = value == "true",
                _ => manifest.dependencies.extend(dependency(&table, key, value, i + 1)),
            }
        }
        manifest
    }
}

/// Reads `name = ..`, `name.workspace = true` in `[dependencies]` and its relatives (also of a
/// target), and any key of a `[dependencies.name]` table.
fn dependency(table: &str, key: &str, value: &str, line: usize) -> Option<Dependency> {
    const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    if table.starts_with("workspace.") {
        return None;
    }
    let folders: Vec<&str> = table.rsplit('.').collect();
    let own_table = folders.get(1).is_some_and(|folder| TABLES.contains(folder));
    let (name, inherited) = if TABLES.contains(&folders[0]) {
        let name = key.split('.').next().unwrap_or(key);
        (name, key.ends_with(".workspace") || value.replace(' ', "").contains("workspace=true"))
    } else if own_table && matches!(key, "version" | "path" | "git" | "workspace") {
        (folders[0], key == "workspace")
    } else {
        return None;
    };
    let for_tests = table.contains("dev-dependencies");
    Some(Dependency { name: name.trim_matches('"').to_string(), line, for_tests, inherited })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_dependency_is_read() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n\
                    b = { workspace = true, features = [\"f\"] }\nc = \"1\" # why\n\
                    [dev-dependencies]\nd = { version = \"1\" }\n\
                    [target.'cfg(unix)'.dependencies]\ne = \"2\"\n\
                    [dependencies.f]\nversion = \"3\"\nfeatures = []\n\
                    [lints]\nworkspace = true\n";
        let manifest = Manifest::parse(text);
        let found: Vec<(&str, usize, bool, bool)> = manifest
            .dependencies
            .iter()
            .map(|d| (d.name.as_str(), d.line, d.for_tests, d.inherited))
            .collect();
        let expected = [
            ("a", 4, false, true),
            ("b", 5, false, true),
            ("c", 6, false, false),
            ("d", 8, true, false),
            ("e", 10, false, false),
            ("f", 12, false, false),
        ];
        assert_eq!(found, expected);
        assert!(manifest.has_workspace_lints);
        assert_eq!(manifest.package.as_deref(), Some("x"));
    }

    #[test]
    fn the_table_of_versions_is_not_a_dependency() {
        let text = "[workspace.dependencies]\na = \"1\"\n[workspace.lints.rust]\nb = \"warn\"\n";
        let manifest = Manifest::parse(text);
        assert_eq!(manifest.dependencies, []);
        assert!(!manifest.has_workspace_lints);
        assert_eq!(manifest.package, None);
    }
}
