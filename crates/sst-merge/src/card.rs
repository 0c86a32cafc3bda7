//! The model card of a merge: what a reader of the folder wants to know, in Markdown.

use crate::{Diagnostics, MergeRecord, Merged, Selection, Space};
use sst_artefact::Manifest;
use std::fmt::Write;

/// The text of `README.md`.
pub(crate) fn card(merged: &Merged, record: &MergeRecord, manifest: &Manifest) -> String {
    let base = merged.adapter.config.base_model_name_or_path.as_deref();
    let mut text = String::from("---\nlibrary_name: peft\n");
    if let Some(base) = base {
        // A JSON string is a YAML string.
        push(&mut text, format_args!("base_model: {}", serde_json::json!(base)));
    }
    text.push_str("tags:\n- lora\n- merge\n- sst-merge\n---\n\n# Merged LoRA adapter\n\n");
    let of_base = base.map(|base| format!(" of `{base}`")).unwrap_or_default();
    push(
        &mut text,
        format_args!(
            "A utility and a safety adapter{of_base}, merged by SST-Merge {}.",
            manifest.tool_version
        ),
    );
    push(
        &mut text,
        format_args!(
            "Weights: {}, SHA-256 `{}`.\n",
            record.dtype,
            plain(&manifest.facts["weights_sha256"])
        ),
    );

    text.push_str("## Recipe\n\n| setting | value |\n| --- | --- |\n");
    for (setting, value) in record.recipe.as_object().into_iter().flatten() {
        push(
            &mut text,
            format_args!("| {} | {} |", cell(setting), cell(&plain(value))),
        );
    }
    if !record.command.is_empty() {
        push(&mut text, format_args!("\n```sh\n{}\n```", record.command));
    }

    text.push_str("\n## Inputs\n\n| role | path | SHA-256 |\n| --- | --- | --- |\n");
    for (role, input) in &record.inputs {
        push(
            &mut text,
            format_args!(
                "| {} | {} | `{}` |",
                cell(role),
                cell(&input.path.display().to_string()),
                input.sha256
            ),
        );
    }

    text.push_str("\n## What the merge did\n\n| measure | value |\n| --- | --- |\n");
    for (measure, value) in measures(&merged.diagnostics) {
        push(&mut text, format_args!("| {measure} | {value} |"));
    }
    if let Some(spectrum) = merged.diagnostics.selection.as_ref().and_then(Selection::spectrum) {
        text.push_str("\n## Spectrum\n\n| quantile of all eigenvalues | value |\n| --- | --- |\n");
        for quantile in &spectrum.quantiles {
            push(
                &mut text,
                format_args!("| {} | {:.6e} |", quantile.level, quantile.value),
            );
        }
    }
    text
}

fn measures(d: &Diagnostics) -> Vec<(&'static str, String)> {
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let space = match d.space {
        Space::Phi => "entries of A and B",
        Space::Delta => "changes of the weights",
    };
    let mut rows = vec![
        ("norms are over", space.to_owned()),
        ("parameters", d.parameters.to_string()),
        ("norm of U", format!("{:.6}", d.norm_utility)),
        ("norm of S", format!("{:.6}", d.norm_safety)),
        ("norm of the merge", format!("{:.6}", d.norm_merged)),
    ];
    rows.extend(
        d.norm_safety_used
            .map(|x| ("norm of the safety part added", format!("{x:.6}"))),
    );
    if let Some(output) = &d.output {
        rows.push(("largest rank", output.rank_max.to_string()));
        rows.push((
            "relative error of cutting the rank",
            format!("{:.3e}", output.relative_error),
        ));
    }
    rows.extend(d.relative_change.map(|x| ("change relative to U", percent(x))));
    rows.extend(d.cosine.map(|x| ("cosine of U and S", format!("{x:.4}"))));
    rows.extend(d.k.map(|k| ("directions k", k.to_string())));
    rows.extend(d.projection.map(|projection| ("projection", projection.to_string())));
    rows.extend(d.alignment.as_ref().map(|alignment| {
        let of = format!("{} of {}", alignment.changed, alignment.cosines.len());
        ("modules changed for leaving the alignment subspace", of)
    }));
    rows.extend(
        d.retained_energy
            .map(|x| ("energy of S kept by the subspace", percent(x))),
    );
    rows.extend(d.random_control.map(|c| {
        (
            "energy kept by a random subspace of the same k",
            percent(c.retained_energy),
        )
    }));
    if let Some(report) = &d.sst {
        rows.extend(report.random_energy.map(|x| {
            (
                "energy that random directions of the same sigma keep on average",
                percent(x),
            )
        }));
        let directions = report.effective_directions;
        rows.extend(directions.map(|x| ("effective number of directions", format!("{x:.1}"))));
        if let Some(t) = report
            .tradeoff
            .filter(|t| t.utility_of_target > 0.0 && t.safety_of_utility > 0.0)
        {
            rows.push((
                "utility loss, predicted, of that of the safety target",
                percent(t.utility / t.utility_of_target),
            ));
            rows.push((
                "safety loss left, predicted, of that of U",
                percent(t.safety / t.safety_of_utility),
            ));
        }
    }
    rows.extend(
        d.eigenvalues
            .map(|[largest, smallest]| ("kept eigenvalues", format!("{largest:.6e} to {smallest:.6e}"))),
    );
    if let Some(Selection::TopRatios {
        share_below_ridge_safety,
        share_below_ridge_utility,
        ..
    }) = &d.selection
    {
        rows.push((
            "safety Fisher entries below the ridge",
            percent(*share_below_ridge_safety),
        ));
        rows.push((
            "utility Fisher entries below the ridge",
            percent(*share_below_ridge_utility),
        ));
    }
    rows
}

/// A text that stays in its cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A JSON value without the quotes of a string.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
