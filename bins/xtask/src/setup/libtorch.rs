//! libtorch, taken from the wheel that PyTorch publishes for Python.
//!
//! The wheel's GPU half is several GB with its dependencies. Without a GPU only `libtorch_cpu.so` and what it
//! links is wanted, so the CPU build installs three wheels without their dependencies and drops the rest:
//! what is left must link with GNU ld too, which refuses a library whose own needs are missing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::pip::Pip;
use crate::command::Command;
use crate::remove::remove;
use crate::workspace::Workspace;

/// The version that torch-sys, behind tch 0.26, is generated for.
const VERSION: &str = "2.13.0";

/// What `libtorch_cpu.so` of that version links although it drives no GPU (Linux on x86-64).
const LINKED_BY_CPU: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// Nothing of ours runs Python code of the wheel; fixing its version frees the user's from having one.
const WHEEL_PYTHON: [&str; 3] = ["--only-binary=:all:", "--python-version", "3.12"];

/// Which build of libtorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// No GPU support.
    Cpu,
    /// With CUDA.
    Cuda,
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        })
    }
}

/// Makes sure that torch-sys will find a libtorch: the user's own where a variable names one, ours otherwise.
pub fn bring(workspace: &Workspace, wanted: Option<Build>) -> Result<()> {
    let variable = |name: &str| std::env::var_os(name);
    match choice(&workspace.root, variable("LIBTORCH"), variable("LIBTORCH_USE_PYTORCH")) {
        Choice::Python => python_has_torch(),
        Choice::Own(folder) => own_is_complete(&folder),
        Choice::Ours => ours(workspace, wanted),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// The torch package of the user's Python.
    Python,
    /// The folder that the user's `LIBTORCH` names.
    Own(PathBuf),
    /// `.libtorch` in the root.
    Ours,
}

/// Follows torch-sys, where `LIBTORCH_USE_PYTORCH` wins over `LIBTORCH`.
///
/// Cargo's configuration sets `LIBTORCH` to our folder wherever the user has not, also for this program.
fn choice(root: &Path, libtorch: Option<impl Into<PathBuf>>, use_pytorch: Option<impl AsRef<OsStr>>) -> Choice {
    if use_pytorch.is_some() {
        return Choice::Python;
    }
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match libtorch.map(Into::into) {
        Some(own) if resolved(&own) != resolved(&root.join(".libtorch/torch")) => Choice::Own(own),
        _ => Choice::Ours,
    }
}

fn python_has_torch() -> Result<()> {
    // The interpreter that torch-sys asks.
    let python = if std::env::var_os("VIRTUAL_ENV").is_some() {
        "python"
    } else {
        "python3"
    };
    let torch = Command::new(python)
        .args(["-c", "import torch; print(torch.__version__)"])
        .answer();
    let Some(version) = torch else {
        bail!(
            "LIBTORCH_USE_PYTORCH is set, but `{python}` cannot import torch: install torch=={VERSION} there or unset it"
        );
    };
    eprintln!(
        "libtorch: torch {} of {python}, as LIBTORCH_USE_PYTORCH says",
        version.trim()
    );
    Ok(())
}

fn own_is_complete(folder: &Path) -> Result<()> {
    if folder.is_relative() {
        bail!(
            "LIBTORCH is {:?}: make it an absolute path, or unset it",
            folder.display().to_string()
        );
    }
    if !has_library(folder, "libtorch_cpu") {
        bail!(
            "LIBTORCH names {}, but there is no lib/libtorch_cpu in it: correct it or unset it",
            folder.display()
        );
    }
    eprintln!("libtorch: {}, as LIBTORCH says", folder.display());
    Ok(())
}

fn ours(workspace: &Workspace, wanted: Option<Build>) -> Result<()> {
    let home = workspace.root.join(".libtorch");
    let there = installed(&home);
    if let Some(build) = there
        && wanted.is_none_or(|wanted| wanted == build)
    {
        eprintln!("libtorch: {VERSION} ({build}) is there, in .libtorch");
        if wanted.is_none() && build == Build::Cpu && has_nvidia_driver() {
            eprintln!("libtorch: this machine has an NVIDIA driver; `cargo xtask setup --cuda` replaces the CPU build");
        }
        return Ok(());
    }
    let build = wanted.unwrap_or_else(|| if has_nvidia_driver() { Build::Cuda } else { Build::Cpu });
    install(workspace, build, &home)?;
    if there.is_some() {
        // torch-sys watches the variables only, not what lies at the path they name.
        for profile in ["dev", "release"] {
            workspace
                .cargo(["clean", "--quiet", "--package", "torch-sys", "--profile", profile])
                .run()?;
        }
    }
    Ok(())
}

/// The build of [`VERSION`] that a finished set-up left in `home`.
fn installed(home: &Path) -> Option<Build> {
    let torch = home.join("torch");
    let version = std::fs::read_to_string(torch.join("build-version")).ok()?;
    // As torch-sys reads it: `2.13.0+cpu` is 2.13.0.
    let number = version.trim().split('+').next();
    if number != Some(VERSION) || !has_library(&torch, "libtorch_cpu") {
        return None;
    }
    Some(if has_library(&torch, "libtorch_cuda") {
        Build::Cuda
    } else {
        Build::Cpu
    })
}

fn has_library(torch: &Path, name: &str) -> bool {
    ["so", "dylib"]
        .iter()
        .any(|extension| torch.join("lib").join(name).with_extension(extension).is_file())
}

fn has_nvidia_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Command::new("nvidia-smi").answer().is_some()
        || Command::new("ldconfig")
            .args(["-p"])
            .answer()
            .is_some_and(|list| list.contains("libcuda.so.1"))
}

/// Installs into a folder beside `home` and renames it when it is complete.
fn install(workspace: &Workspace, build: Build, home: &Path) -> Result<()> {
    let pip = Pip::find(workspace)?;
    let partial = home.with_file_name(".libtorch-partial");
    remove(&partial)?;
    std::fs::create_dir(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
    write(&partial.join(".gitignore"), "*\n")?;

    let mut wheels = vec![format!("torch=={VERSION}")];
    let mut pip_install = pip
        .install(workspace)
        .args(["--target"])
        .args([&partial])
        .args(WHEEL_PYTHON);
    if build == Build::Cpu {
        pip_install = pip_install.args(["--no-deps"]);
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            wheels.extend(LINKED_BY_CPU.map(str::to_owned));
        }
    }
    pip_install
        .args(&wheels)
        .run_quietly(&format!("libtorch: fetching {VERSION} ({build}) into .libtorch"))?;

    if build == Build::Cpu {
        trim(&partial)?;
    }
    write(&partial.join("torch/build-version"), VERSION)?;
    match installed(&partial) {
        Some(got) if got == build => {}
        Some(got) => {
            bail!("the torch wheel for this machine holds a {got} build, not the {build} build")
        }
        None => bail!("the torch wheel for this machine holds no libtorch_cpu library"),
    }
    remove(home)?;
    std::fs::rename(&partial, home)
        .with_context(|| format!("{} cannot be renamed to {}", partial.display(), home.display()))
}

/// Drops the Python package around libtorch, and the GPU libraries whose own needs were not installed.
fn trim(home: &Path) -> Result<()> {
    for path in entries(home)? {
        let name = name_of(&path);
        if !["torch", "nvidia", ".gitignore"].contains(&name.as_str()) && !name.ends_with(".dist-info") {
            remove(&path)?;
        }
    }
    let torch = home.join("torch");
    for path in entries(&torch)? {
        if !["include", "lib", "share"].contains(&name_of(&path).as_str()) {
            remove(&path)?;
        }
    }
    let lib = torch.join("lib");
    let unwanted = [
        "libtorch_cuda",
        "libc10_cuda",
        "libcaffe2_nvrtc",
        "libtorch_nvshmem",
        "libtorch_python",
    ];
    for path in entries(&lib)? {
        if unwanted.iter().any(|prefix| name_of(&path).starts_with(prefix)) {
            remove(&path)?;
        }
    }
    // The wheel's own is an empty library that links the GPU half.
    #[cfg(target_os = "linux")]
    {
        let front = lib.join("libtorch.so");
        remove(&front)?;
        std::os::unix::fs::symlink("libtorch_cpu.so", &front)
            .with_context(|| format!("{} cannot be linked", front.display()))?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()
    };
    read().with_context(|| format!("{} cannot be read", folder.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSET: Option<&str> = None;

    fn touch(home: &Path, files: &[&str]) {
        for file in files {
            let path = home.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn the_variables_choose_as_in_torch_sys() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join(".libtorch/torch");
        assert_eq!(choice(root.path(), UNSET, UNSET), Choice::Ours);
        assert_eq!(choice(root.path(), Some(&ours), UNSET), Choice::Ours);
        assert_eq!(
            choice(root.path(), Some("/opt/libtorch"), UNSET),
            Choice::Own("/opt/libtorch".into())
        );
        assert_eq!(choice(root.path(), Some("/opt/libtorch"), Some("1")), Choice::Python);
        assert_eq!(choice(root.path(), Some(&ours), Some("1")), Choice::Python);
    }

    #[cfg(unix)]
    #[test]
    fn our_folder_by_another_path_is_still_ours() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(".libtorch/torch")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("link")).unwrap();
        assert_eq!(
            choice(root.path(), Some(root.path().join("link/.libtorch/torch")), UNSET),
            Choice::Ours
        );
    }

    #[test]
    fn only_a_finished_install_of_the_right_version_counts() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(installed(home.path()), None);
        touch(home.path(), &["torch/lib/libtorch_cpu.so"]);
        assert_eq!(installed(home.path()), None);
        write(&home.path().join("torch/build-version"), "2.12.0").unwrap();
        assert_eq!(installed(home.path()), None);
        write(&home.path().join("torch/build-version"), &format!("{VERSION}+cpu\n")).unwrap();
        assert_eq!(installed(home.path()), Some(Build::Cpu));
        touch(home.path(), &["torch/lib/libtorch_cuda.so"]);
        assert_eq!(installed(home.path()), Some(Build::Cuda));
        std::fs::remove_file(home.path().join("torch/lib/libtorch_cpu.so")).unwrap();
        assert_eq!(installed(home.path()), None);
    }

    #[test]
    fn trimming_leaves_the_cpu_library_its_headers_and_the_licences() {
        let home = tempfile::tempdir().unwrap();
        let kept = [
            "nvidia/cu13/lib/libcudart.so.13",
            "torch-2.13.0.dist-info/licenses/LICENSE",
            "torch/include/torch/script.h",
            "torch/lib/libc10.so",
            "torch/lib/libtorch_cpu.so",
        ];
        let dropped = [
            "functorch/__init__.py",
            "torch/__init__.py",
            "torch/nn/functional.py",
            "torch/lib/libc10_cuda.so",
            "torch/lib/libtorch_cuda_linalg.so",
            "torch/lib/libtorch_nvshmem.so",
            "torch/lib/libtorch_python.so",
        ];
        touch(home.path(), &kept);
        touch(home.path(), &dropped);
        touch(home.path(), &["torch/lib/libtorch.so"]);
        trim(home.path()).unwrap();
        for file in kept {
            assert!(home.path().join(file).is_file(), "{file} is gone");
        }
        for file in dropped {
            assert!(!home.path().join(file).exists(), "{file} is still there");
        }
        if cfg!(target_os = "linux") {
            assert_eq!(
                home.path().join("torch/lib/libtorch.so").read_link().unwrap(),
                Path::new("libtorch_cpu.so")
            );
        }
    }

    #[test]
    fn a_users_folder_without_the_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = own_is_complete(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        touch(folder.path(), &["lib/libtorch_cpu.so"]);
        own_is_complete(folder.path()).unwrap();
        let error = own_is_complete(Path::new("libtorch")).unwrap_err().to_string();
        assert!(error.contains("absolute"), "{error}");
    }
}
