//! The script of one stage's job array.

use crate::invocation::quoted;
use crate::{Invocation, PlanStage};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// A script that runs the part of its array's index and leaves `<code> <seconds>` in an exit file beside the log.
///
/// The log and the exit file are named by stage, job and part, in `logs`.
pub(crate) fn script(invocation: &Invocation, stage: PlanStage, of: usize, logs: &Path) -> String {
    let index = "\"$SLURM_ARRAY_TASK_ID\"";
    let mut command = invocation.part(stage, "", of);
    // The last word is `/<of>`; the shell puts the index before it.
    let of = command.pop().unwrap_or_default();
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let exit = logs.join(format!("{stage}-")).display().to_string();
    let mut text = String::from("#!/bin/sh\n");
    let folder = quoted(&invocation.folder.display().to_string());
    let _ = write!(
        text,
        "cd {folder} || exit\nbegan=$(date +%s)\n{} {index}{of}\ncode=$?\n\
         echo \"$code $(($(date +%s) - began))\" > {}\"$SLURM_ARRAY_JOB_ID\"_{index}.exit\nexit $code\n",
        words.join(" "),
        quoted(&exit),
    );
    text
}

/// Numbers as `sbatch --array` takes them: `1-3,7`.
pub(crate) fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |(first, last): &(usize, usize)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::fate::Exit;

    #[test]
    fn the_script_runs_the_part_of_its_index_and_keeps_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("it's here");
        std::fs::create_dir(&logs).unwrap();
        let path = dir.path().join("script.sh");
        for code in [0, 3] {
            let invocation = Invocation {
                folder: dir.path().to_path_buf(),
                program: "sh".into(),
                arguments: [
                    "-c",
                    &format!("printf '%s\\n' \"$PWD\" \"$@\"; exit {code}"),
                    "two words",
                ]
                .map(str::to_owned)
                .to_vec(),
            };
            std::fs::write(&path, script(&invocation, PlanStage::Merge, 8, &logs)).unwrap();
            let output = std::process::Command::new("sh")
                .arg(&path)
                .envs([("SLURM_ARRAY_TASK_ID", "5"), ("SLURM_ARRAY_JOB_ID", "12")])
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(code));
            let printed = String::from_utf8(output.stdout).unwrap();
            let folder = dir.path().canonicalize().unwrap();
            assert_eq!(printed, format!("{}\n--stage\nmerge\n--part\n5/8\n", folder.display()));
            let exit = Exit::parse(&std::fs::read_to_string(logs.join("merge-12_5.exit")).unwrap()).unwrap();
            assert_eq!(exit.code, code);
        }
    }

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&BTreeSet::from([1, 2, 3, 7, 9, 10])), "1-3,7,9-10");
    }
}
