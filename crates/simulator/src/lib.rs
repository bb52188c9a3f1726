//! A discrete-event world that drives the same fleet and lifecycle as the gateway.
