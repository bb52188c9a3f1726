//! Requests that name what an account keeps are served by that account, or not at all.

mod support;

use pointsman_routing::catalog::{Capabilities, CredentialSpec};
use pointsman_routing::decision::{Outcome, Rejection, WhyNot};
use pointsman_routing::facts::{Lane, Pin};
use pointsman_routing::fleet::NoSoleAccount;
use pointsman_routing::flow::{Action, Input, Refusal};
use pointsman_routing::{Facts, FailureClass};
