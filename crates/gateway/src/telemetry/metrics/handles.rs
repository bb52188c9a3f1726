//! What requests are counted by.

use std::time::Duration;

use pointsman_routing::flow::Usage;

use super::{AttemptLabels, DeploymentMetrics, Metrics, ModelMetrics, OutcomeLabels};

impl ModelMetrics {
    /// A request ended.
    pub fn settled(
        &self,
        metrics: &Metrics,
        outcome: &'static str,
        total: Duration,
        queue_wait: Duration,
        usage: Option<&Usage>,
    ) {
        if outcome == "completed" {
            self.completed.inc();
        } else {
            metrics.requests.get(&OutcomeLabels { model: self.model.clone(), outcome }).inc();
        }
        self.duration.observe(total.as_secs_f64());
        if !queue_wait.is_zero() {
            self.queue_wait.observe(queue_wait.as_secs_f64());
        }
        if let Some(usage) = usage {
            self.tokens_in.observe(usage.tokens_in as f64);
            self.tokens_out.observe(usage.tokens_out as f64);
        }
    }
}

impl DeploymentMetrics {
    /// An attempt ended: `ok`, `cancelled`, or the class of its failure.
    pub fn attempt_ended(&self, metrics: &Metrics, reason: &'static str) {
        if reason == "ok" {
            self.succeeded.inc();
            return;
        }
        let labels = AttemptLabels { model: self.model.clone(), deployment: self.deployment.clone(), reason };
        metrics.attempts.get(&labels).inc();
    }

    /// Time from the beginning of an attempt to its first content.
    pub fn first_token(&self, took: Duration) {
        self.first_token.observe(took.as_secs_f64());
    }

    /// Time between output tokens.
    pub fn per_token(&self, took: Duration) {
        self.per_token.observe(took.as_secs_f64());
    }
}
