//! How long a request will take to its first token at each deployment, and a token after that.
//!
//! A closed form, fitted online per deployment:
//!
//! ```text
//! first token = a fixed part + prompt tokens to compute, those of the requests before it included
//!             + their attention (each token reads all before it)
//!             + for each step of that prefill: the requests and tokens that decode beside it
//! a token     = a fixed part + requests that decode + tokens that they read
//! ```
//!
//! Lines are recursive least squares with forgetting ([`crate::line`]). A deployment's own line leans on one that all
//! of its tier share, times how much slower than that it has been, as long as it has few times of its own: so a newcomer
//! begins with its peers' line, and one of half their speed is known after a few answers. Errors count in proportion;
//! outliers are clipped; nothing here is ever below zero, infinite or not a number.

use std::time::Duration;

use crate::line::Line;
use crate::room::Room;
use crate::time::Now;

/// Terms of the line to the first token.
const FIRST: usize = 5;
/// Terms of the line of a token.
const TOKEN: usize = 3;
/// Prompt tokens of one step of an engine's prefill.
const STEP_TOKENS: f64 = 2_048.0;
/// How much of every new time the own line takes in, at the least.
const FOLLOW: f64 = 1.0 / 128.0;
/// The same of the shared line.
const FOLLOW_SHARED: f64 = 1.0 / 512.0;
/// Times that the shared line counts as beside the own: as many as the own remembers. Engines of one tier differ in speed,
/// which is learnt as one factor, more than in kind; and where lines of equal engines differ by chance, load follows.
const SHARED: f64 = 128.0;
/// Times that what is thought before the first counts as.
const PRIOR: f64 = 2.0;
/// Times of all deployments of a tier from which on predictions are more than a guess.
const KNOWN: u32 = 20;
/// Times below this do not differ in a way that anybody would notice, seconds; added to both sides of a ratio.
const NOTICED_S: f64 = 0.02;
/// Residuals (logarithms of ratios) beyond this count as no more.
const CLIP: f64 = 1.0;
/// How far from the shared line a deployment may be thought to be: the logarithm of 20.
const SPEED_MAX: f64 = 3.0;
/// How fast errors and speed follow.
const LATELY: f64 = 1.0 / 32.0;
/// Tokens whose slowing down counts beside the first: those of others that decode there, and its own.
pub(crate) const DECODE_TOKENS: f64 = 32.0;
/// Standard deviations that a promise is kept by: nine of ten times.
const MARGIN: f64 = 1.28;
/// Without a time of its own for so long a deployment may be looked at for no other reason.
const STALE: Duration = Duration::from_mins(1);
/// A mean absolute distance is four fifths of a standard deviation.
const DEVIATION: f64 = 1.25;

/// What a deployment has to do when a request comes, and of that request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Work {
    /// Prompt tokens to compute, the request's own included.
    pub(crate) tokens: f64,
    /// For each of them the tokens before it, summed up.
    pub(crate) attention: f64,
    /// What of that is the request's own.
    pub(crate) own_tokens: f64,
    pub(crate) own_attention: f64,
    /// Requests that decode.
    pub(crate) decoding: f64,
    /// Tokens of those.
    pub(crate) tokens_decoding: f64,
}

/// Tokens that come before those of a prompt that are computed, summed up.
pub(crate) fn attention(cached: u32, uncached: u32) -> u64 {
    u64::from(uncached) * (u64::from(cached) + u64::from(uncached) / 2)
}

impl Work {
    /// The terms that a time is learnt from, as small as a permit can carry.
    pub(crate) fn compact(&self) -> [f32; 4] {
        [self.tokens, self.attention, self.decoding, self.tokens_decoding].map(|term| term as f32)
    }

    /// The same again.
    pub(crate) fn of(compact: [f32; 4]) -> Self {
        let [tokens, attention, decoding, tokens_decoding] = compact.map(f64::from);
        Self { tokens, attention, decoding, tokens_decoding, ..Self::default() }
    }

    fn first(&self) -> [f64; FIRST] {
        let steps = 1.0 + self.tokens / STEP_TOKENS;
        [
            1.0,
            self.tokens / 1e4,
            self.attention / 1e8,
            steps * self.decoding / 1e2,
            steps * self.tokens_decoding / 1e6,
        ]
    }

    fn token(&self) -> [f64; TOKEN] {
        [1.0, self.decoding / 1e2, self.tokens_decoding / 1e6]
    }
}

/// What is thought before anything is known: an 8B model on one big GPU, somewhat slower. The first time scales it.
const FIRST_PRIOR: [f64; FIRST] = [0.02, 0.6, 0.2, 0.001, 0.1];
const TOKEN_PRIOR: [f64; TOKEN] = [0.01, 0.002, 0.1];
/// Prompts that it is thought for: tokens, decoding requests and their tokens.
const THOUGHT: [(f64, f64, f64); 4] =
    [(64.0, 0.0, 0.0), (2e3, 0.0, 0.0), (3e4, 8.0, 5e4), (500.0, 32.0, 2e5)];

/// What the deployments of a tier have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shared {
    first: Line<FIRST>,
    token: Line<TOKEN>,
    seen: u32,
    seen_tokens: u32,
}

impl Default for Shared {
    fn default() -> Self {
        let mut one =
            Self { first: Line::of(FIRST_PRIOR), token: Line::of(TOKEN_PRIOR), seen: 0, seen_tokens: 0 };
        for (nth, (tokens, decoding, tokens_decoding)) in THOUGHT.into_iter().enumerate() {
            let attention = tokens * tokens / 2.0;
            let work = Work { tokens, attention, decoding, tokens_decoding, ..Work::default() };
            let gain = 1.0 / (nth as f64 + 1.0);
            let (first, token) = (one.first.at(&work.first()), one.token.at(&work.token()));
            learn(&mut one.first, first, &work.first(), gain);
            learn(&mut one.token, token, &work.token(), gain);
        }
        one
    }
}

/// What is known of engines' times is wrong from now on: for experiments that ask what that costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mistake {
    /// Nothing is known any more.
    Forgotten,
    /// Every other coefficient is greater by this share than it should be, and the others are less by it; at the next
    /// deployment the other way round.
    Wrong(f64),
}

impl Mistake {
    fn make<const N: usize>(share: f64, nth: usize, line: &mut Line<N>) {
        line.mistake(|term| if (term + nth).is_multiple_of(2) { 1.0 + share } else { 1.0 - share });
    }
}

impl Shared {
    /// What is known is wrong from now on.
    pub(crate) fn mistake(&mut self, mistake: Mistake) {
        match mistake {
            Mistake::Forgotten => *self = Self::default(),
            Mistake::Wrong(share) => {
                Mistake::make(share, 0, &mut self.first);
                Mistake::make(share, 0, &mut self.token);
            }
        }
    }

    /// Whether enough is known for predictions to be more than a guess.
    pub(crate) fn is_known(&self) -> bool {
        self.seen >= KNOWN
    }
}

/// How fast one deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Predictor {
    first: Line<FIRST>,
    token: Line<TOKEN>,
    seen: u32,
    seen_tokens: u32,
    /// The logarithm of how much slower than the shared line it is.
    speed: f64,
    speed_tokens: f64,
    /// The mean distance of what came from what was predicted, as a logarithm.
    spread: f64,
    /// The same with its sign: above nothing where answers come later than predicted.
    bias: f64,
    /// Predictions that were compared with what came.
    compared: u64,
    /// When something was learnt last.
    learnt_at: Now,
}

/// What is predicted for a request at a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Predicted {
    /// Time to the first token, milliseconds.
    pub first_ms: f64,
    /// The same as nine of ten will keep to.
    pub first_high_ms: f64,
    /// Time per token after that, milliseconds.
    pub token_ms: f64,
    /// What decoding there is slowed down by what decodes there, over a few tokens, milliseconds.
    pub interference_ms: f64,
    /// What it costs those who come later that it takes room there, milliseconds.
    pub full_ms: f64,
    /// What of it is the request's own prompt, milliseconds.
    pub own_ms: f64,
    /// Whether that is more than a guess.
    pub known: bool,
    /// Whether nothing was learnt of the deployment for a while.
    pub stale: bool,
}

impl Predicted {
    /// It has to wait for room: of the prompts before it, what is computed meanwhile is no matter.
    pub(crate) fn wait_for(&mut self, room: Room) {
        self.full_ms = room.full_ms;
        let first_ms = self.first_ms.max(room.wait_ms + self.own_ms);
        if room.wait_ms > 0.0 && first_ms > self.first_ms {
            self.first_high_ms *= first_ms / self.first_ms.max(1e-3);
            self.first_ms = first_ms;
        }
    }
}

/// How well predictions have been kept lately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Error {
    /// Predictions that were compared.
    pub compared: u64,
    /// Mean relative error.
    pub mean: f64,
    /// How many times as long as predicted it took in the middle; above 1 where answers come late.
    pub bias: f64,
}

impl Predictor {
    /// What is known is wrong from now on, at the deployment of that number.
    pub(crate) fn mistake(&mut self, mistake: Mistake, nth: usize) {
        match mistake {
            Mistake::Forgotten => *self = Self::default(),
            Mistake::Wrong(share) => {
                Mistake::make(share, nth, &mut self.first);
                Mistake::make(share, nth, &mut self.token);
            }
        }
    }

    /// What a request is to expect.
    pub(crate) fn predict(&self, shared: &Shared, work: &Work, now: Now) -> Predicted {
        let first = at(&self.first, &shared.first, self.seen, self.speed, &work.first());
        let lines = (&self.token, &shared.token);
        let token = |terms: &[f64; TOKEN]| at(lines.0, lines.1, self.seen_tokens, self.speed_tokens, terms);
        let token_s = token(&work.token());
        let interference_s = token_s - token(&[1.0, 0.0, 0.0]);
        let margin = (MARGIN * DEVIATION * self.spread).min(CLIP).exp();
        Predicted {
            first_ms: first * 1e3,
            first_high_ms: first * margin * 1e3,
            token_ms: token_s * 1e3,
            full_ms: 0.0,
            interference_ms: interference_s.max(0.0) * DECODE_TOKENS * 1e3,
            own_ms: self.prefill_s(shared, work.own_tokens, work.own_attention) * 1e3,
            known: shared.is_known(),
            stale: self.seen > 0 && now - self.learnt_at > STALE,
        }
    }

    /// How long a token of an answer takes, milliseconds.
    pub(crate) fn token_ms(&self, shared: &Shared, work: &Work) -> f64 {
        at(&self.token, &shared.token, self.seen_tokens, self.speed_tokens, &work.token()) * 1e3
    }

    /// How long it takes to compute so much of prompts, seconds.
    pub(crate) fn prefill_s(&self, shared: &Shared, tokens: f64, attention: f64) -> f64 {
        let terms = [0.0, tokens / 1e4, attention / 1e8, 0.0, 0.0];
        at(&self.first, &shared.first, self.seen, self.speed, &terms)
    }

    /// A first token came after so long.
    pub(crate) fn observe_first(&mut self, shared: &mut Shared, work: &Work, took: Duration, now: Now) {
        self.learnt_at = now;
        let (terms, seconds) = (work.first(), took.as_secs_f64().min(1e5));
        if shared.seen == 0 {
            rescale(&mut shared.first, seconds, &terms);
        }
        if self.seen == 0 {
            self.first = shared.first;
        }
        let expected = at(&self.first, &shared.first, self.seen, self.speed, &terms);
        let residual = residual(seconds, expected);
        if shared.is_known() {
            self.compared += 1;
            self.spread += (residual.abs() - self.spread) * LATELY.max(1.0 / self.compared as f64);
            self.bias += (residual - self.bias) * LATELY.max(1.0 / self.compared as f64);
        }
        let (own, all) = (&mut self.first, &mut shared.first);
        take_both(own, all, (&mut self.seen, &mut shared.seen), &mut self.speed, seconds, &terms);
    }

    /// The tokens of an answer after its first came so far apart.
    pub(crate) fn observe_token(&mut self, shared: &mut Shared, work: &Work, each: Duration) {
        let (terms, seconds) = (work.token(), each.as_secs_f64().min(1e3));
        if shared.seen_tokens == 0 {
            rescale(&mut shared.token, seconds, &terms);
        }
        if self.seen_tokens == 0 {
            self.token = shared.token;
        }
        let counts = (&mut self.seen_tokens, &mut shared.seen_tokens);
        let (own, all) = (&mut self.token, &mut shared.token);
        take_both(own, all, counts, &mut self.speed_tokens, seconds, &terms);
    }

    /// How well predictions have been kept lately; `None` while none was compared.
    pub(crate) fn error(&self) -> Option<Error> {
        let mean = self.spread.exp() - 1.0;
        (self.compared > 0).then(|| Error { compared: self.compared, mean, bias: self.bias.exp() })
    }
}

/// What a deployment's line says, or the shared one while it has none of its own.
fn at<const N: usize>(own: &Line<N>, shared: &Line<N>, seen: u32, speed: f64, terms: &[f64; N]) -> f64 {
    let seconds = if seen == 0 { shared.at(terms) * speed.exp() } else { own.at(terms) };
    if seconds.is_finite() { seconds.clamp(0.0, 1e5) } else { 1e5 }
}

fn residual(seconds: f64, expected: f64) -> f64 {
    ((seconds + NOTICED_S) / (expected + NOTICED_S)).ln().clamp(-SPEED_MAX, SPEED_MAX)
}

/// Errors count in proportion to the time.
fn learn<const N: usize>(line: &mut Line<N>, seconds: f64, terms: &[f64; N], gain: f64) {
    let expected = line.at(terms) + NOTICED_S;
    line.take(seconds, terms, gain, 1.0 / (expected * expected));
}

/// The first time of all says what everything before was out by.
fn rescale<const N: usize>(line: &mut Line<N>, seconds: f64, terms: &[f64; N]) {
    line.scale(residual(seconds, line.at(terms)).exp());
}

fn take_both<const N: usize>(
    own: &mut Line<N>,
    shared: &mut Line<N>,
    (seen, seen_shared): (&mut u32, &mut u32),
    speed: &mut f64,
    seconds: f64,
    terms: &[f64; N],
) {
    *seen = seen.saturating_add(1);
    *seen_shared = seen_shared.saturating_add(1);
    let of_shared = residual(seconds, shared.at(terms));
    *speed += (of_shared - *speed) * LATELY.max(1.0 / f64::from(*seen));
    let believe = |expected: f64| {
        let near = residual(seconds, expected).clamp(-CLIP, CLIP);
        ((expected + NOTICED_S) * near.exp() - NOTICED_S).max(0.0)
    };
    let (from_shared, from_own) = (believe(shared.at(terms) * speed.exp()), believe(own.at(terms)));
    learn(shared, from_shared, terms, FOLLOW_SHARED.max(1.0 / (PRIOR + f64::from(*seen_shared))));
    shared.fit();
    learn(own, from_own, terms, FOLLOW.max(1.0 / f64::from(*seen)));
    let lean = SHARED / (SHARED + f64::from(*seen).min(1.0 / FOLLOW));
    own.fit_with(shared, lean, speed.exp());
}

#[cfg(test)]
mod tests;
