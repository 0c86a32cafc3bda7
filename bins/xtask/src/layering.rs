//! The order of the crates: data flows down the list, nothing imports upwards, and whoever merges adapters
//! in a program of their own does not get libtorch with it.

use anyhow::{Result, bail};

use crate::workspace::{Member, Workspace};

/// The libraries, lowest first; each may depend on those before it.
const LAYERS: [&str; 9] = [
    "sst-artefact",
    "sst-adapter",
    "sst-subspace",
    "sst-merge",
    "sst-data",
    "sst-eval",
    "sst-model",
    "sst-fim",
    "sst-experiment",
];

/// The programs: each may depend on every library, nothing on them.
const PROGRAMS: [&str; 2] = ["sst", "xtask"];

/// Those that build and test with no libtorch, not even through a dependency.
const WITHOUT_LIBTORCH: [&str; 7] = [
    "sst-artefact",
    "sst-adapter",
    "sst-subspace",
    "sst-merge",
    "sst-data",
    "sst-eval",
    "xtask",
];

/// The only ones that may name a tensor of libtorch.
const NAME_TENSORS: [&str; 2] = ["sst-model", "sst-fim"];

/// Checks the rules, and reports every breach at once.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut breaches = order(&workspace.members);
    for package in WITHOUT_LIBTORCH {
        let tree = [
            "tree",
            "--package",
            package,
            "--all-features",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ];
        let tree = workspace.cargo(tree).output()?;
        breaches.extend(
            libtorch_in(&tree).map(|found| format!("{package} must not reach libtorch, but its tree lists {found}")),
        );
    }
    if !breaches.is_empty() {
        bail!("the crates are out of order:\n  {}", breaches.join("\n  "));
    }
    eprintln!("order of the crates: kept");
    Ok(())
}

/// The breaches of the order among `members`.
fn order(members: &[Member]) -> Vec<String> {
    let height = |name: &str| {
        let library = LAYERS.iter().position(|&layer| layer == name);
        library.or_else(|| PROGRAMS.contains(&name).then_some(LAYERS.len()))
    };
    let mut breaches = Vec::new();
    for Member { name, dependencies } in members {
        let Some(own) = height(name) else {
            breaches.push(format!("{name} has no place in the list of layers"));
            continue;
        };
        let upwards = dependencies
            .iter()
            .filter(|dependency| height(dependency).is_some_and(|theirs| theirs >= own));
        breaches.extend(upwards.map(|dependency| format!("{name} depends on {dependency}, which is not below it")));
        if dependencies.iter().any(|dependency| dependency == "tch") && !NAME_TENSORS.contains(&name.as_str()) {
            breaches.push(format!(
                "{name} depends on tch; only {} may",
                NAME_TENSORS.join(" and ")
            ));
        }
    }
    breaches
}

/// The first crate of libtorch's bindings that the output of `cargo tree --prefix none` lists, with its version.
fn libtorch_in(tree: &str) -> Option<&str> {
    tree.lines()
        .find(|line| matches!(line.split_whitespace().next(), Some("tch" | "torch-sys")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|&d| d.to_owned()).collect(),
        }
    }

    #[test]
    fn downwards_is_fine() {
        let members = [
            member("sst", &["anyhow", "sst-experiment", "sst-model", "torch-sys"]),
            member("sst-merge", &["ndarray", "sst-adapter", "sst-subspace"]),
            member("sst-model", &["sst-adapter", "sst-eval", "tch"]),
        ];
        assert_eq!(order(&members), Vec::<String>::new());
    }

    #[test]
    fn upwards_sideways_and_unlisted_are_told_apart_and_all_told() {
        let members = [
            member("sst-adapter", &["sst-merge"]),
            member("sst-eval", &["tch"]),
            member("sst-new", &["sst-adapter"]),
            member("xtask", &["sst"]),
        ];
        assert_eq!(
            order(&members),
            [
                "sst-adapter depends on sst-merge, which is not below it",
                "sst-eval depends on tch; only sst-model and sst-fim may",
                "sst-new has no place in the list of layers",
                "xtask depends on sst, which is not below it",
            ]
        );
    }

    #[test]
    fn libtorch_is_seen_in_a_tree_and_its_namesakes_are_not() {
        let clean = "sst-merge v0.1.0 (/w/crates/sst-merge)\nndarray v0.17.2\nmatches v0.1.10\ntchotchke v1.0.0\nserde v1.0.228 (*)\n";
        assert_eq!(libtorch_in(clean), None);
        let direct = format!("{clean}tch v0.26.0\n");
        assert_eq!(libtorch_in(&direct), Some("tch v0.26.0"));
        let repeated = format!("{clean}torch-sys v0.26.0 (*)\n");
        assert_eq!(libtorch_in(&repeated), Some("torch-sys v0.26.0 (*)"));
    }

    #[test]
    fn the_crates_without_libtorch_lie_below_those_that_name_tensors() {
        let place = |name: &str| LAYERS.iter().position(|&layer| layer == name);
        for tensor in NAME_TENSORS {
            for without in WITHOUT_LIBTORCH.iter().filter(|name| !PROGRAMS.contains(name)) {
                assert!(place(without) < place(tensor), "{without}, {tensor}");
            }
        }
    }
}
