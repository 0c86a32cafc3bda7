//! The judge that a configuration names, with whatever it needs: a classifier's folder, a server.

use crate::Error;
use sst_eval::{EndpointJudge, Judge, JudgeChoice, KeywordJudge, RulesJudge};
use sst_model::{ClassifierJudge, DeviceChoice};
use std::path::PathBuf;

/// The judge itself; a classifier computes on `device`.
///
/// # Errors
/// [`Error::Model`] when the classifier cannot be loaded, [`Error::Endpoint`] when the server cannot be reached.
pub fn judge(choice: &JudgeChoice, device: DeviceChoice) -> Result<Box<dyn Judge>, Error> {
    Ok(match choice {
        JudgeChoice::Rules => Box::new(RulesJudge),
        JudgeChoice::Keyword => Box::new(KeywordJudge),
        JudgeChoice::Classifier(place) => Box::new(ClassifierJudge::load(place, device)?),
        JudgeChoice::Endpoint(place) => Box::new(EndpointJudge::connect(&EndpointJudge::config(place)?)?),
    })
}

/// The folder whose content decides a judge's verdicts, if there is one.
pub(crate) fn judge_folder(choice: &JudgeChoice) -> Option<PathBuf> {
    match choice {
        JudgeChoice::Classifier(place) => Some(place.split('?').next().unwrap_or(place).into()),
        _ => None,
    }
}
