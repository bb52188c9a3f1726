//! What is to be known when a replay is read: what it cannot know.

use super::report::Replay;

/// Below this share two runs with different seeds differ by more than a few ties.
const STEADY_SHARE: f64 = 0.995;

/// What is to be known, a sentence or two for each.
pub(super) fn notes(replay: &Replay) -> Vec<String> {
    let mut notes = Vec::new();
    if replay.told.was.is_none() {
        notes.push(
            "What is compared with the log mixes two things: the new config, and how engines differ from their model. Name \
             the config before (--was) to have both sides simulated."
                .to_owned(),
        );
    }
    notes.push(match &replay.told.fitted {
        Some(fitted) => format!(
            "Engines are a model: {}, as many times slower or faster for each provider as its answers in the log were. Take \
             simulated times for comparing, not as those of your machines.",
            fitted.engine
        ),
        None => "Engines are a model that knows nothing of those of the log. Take simulated times for comparing, not as \
                 those of your machines."
            .to_owned(),
    });
    if replay.log.attempts_failed > 0 {
        notes.push(format!(
            "{} attempts failed in the log. Simulated engines do not fail, so what was decided because they did is decided \
             otherwise here.",
            replay.log.attempts_failed
        ));
    }
    notes.push(
        "The process that wrote the log had learnt how fast and how loaded deployments were, and what they had cached; a \
         replay begins with nothing learnt, and round robin begins at another place."
            .to_owned(),
    );
    if let Some(share) = replay.chance.new_and_itself.filter(|share| *share < STEADY_SHARE) {
        notes.push(format!(
            "Chance has a part in these decisions: two runs of the new config that differ in their seed alone agree in {:.1} % \
             of them. What agrees with the log no less than that may not have changed at all.",
            share * 100.0
        ));
    }
    if replay.results.strategies.iter().flat_map(|one| &one.runs).any(|run| !run.broken.is_empty()) {
        notes.push("What must always hold did not; do not rely on these figures.".to_owned());
    }
    notes
}
