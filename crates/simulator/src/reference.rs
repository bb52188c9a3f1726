//! The slot scheduler once more, slow and obviously right: plain lists, everything looked at and sorted anew at every
//! step, no groups, no trees, nothing remembered. A test drives random histories through a fleet and through this, and
//! compares every grant.
//!
//! It says who is next and where that one may go; where it goes is the strategy's affair, and told to it. What else decides
//! whether a place may be used (a pool's cap, say) comes in as a new field of [`Place`] that [`Place::takes`] asks.

pub mod pool;

use std::collections::BTreeMap;

use pointsman_routing::Now;
use pointsman_routing::facts::{Class, Lane};

/// Of so many grants one goes to each class that waits.
const FLOOR_ONE_IN: u32 = 20;
/// What a class may be owed for.
const OWED_MAX: u32 = 60;
/// Parts of a token that counters are in.
const SCALE: u64 = 1 << 16;
/// Output that is expected of a tenant nothing is known of.
const OUTPUT_FIRST: f64 = 256.0;

/// A deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Requests it may have in flight.
    pub slots: u32,
    /// Of those, of the batch lane.
    pub batch_slots: u32,
    /// What it may be asked for.
    pub offers: Vec<String>,
    /// It is not drained, works, and has a credential for the lane, by lane.
    pub works: [bool; 2],
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Who asks.
    pub tenant: String,
    /// Its lane.
    pub lane: Lane,
    /// Its class.
    pub class: Class,
    /// When it has to be over.
    pub deadline: Now,
    /// What its place must offer.
    pub wants: String,
    /// Its prompt.
    pub tokens_in: u64,
    /// The most output it asked for.
    pub tokens_out_max: u64,
    /// How often it may still have to give its place to a live one.
    pub gives_way: u32,
}

impl Place {
    /// Whether it could take the request, had it slots enough.
    fn fits(&self, asked: &Asked) -> bool {
        self.works[asked.lane as usize] && self.offers.contains(&asked.wants)
    }

    /// Whether it takes one more of these beside those that run there.
    fn takes(&self, asked: &Asked, running: &[Running], name: &str) -> bool {
        let here = || running.iter().filter(|one| one.place == name);
        let batch = here().filter(|one| one.asked.lane == Lane::Batch).count();
        self.fits(asked)
            && here().count() < self.slots as usize
            && (asked.lane == Lane::Live || batch < self.batch_slots as usize)
    }
}

#[derive(Debug, Clone)]
struct Running {
    request: u64,
    asked: Asked,
    place: String,
    /// It has content: nobody takes its place any more.
    content: bool,
    /// In parts of a token over the weight.
    charged: u64,
    /// Of that the output, in parts of a token over the weight.
    output: u64,
}

/// What is paid in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid {
    /// So much prompt that was not cached, and so much output.
    Used(u64, u64),
    /// What was charged.
    AsCharged,
    /// Nothing.
    Nothing,
}

/// A lane and a class of it.
type Rank = (Lane, Class);

#[derive(Debug, Clone)]
struct Account {
    rank: Rank,
    tenant: String,
    counter: u64,
    output_usual: f64,
}

/// All of one model.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// The deployments, by name.
    pub places: BTreeMap<String, Place>,
    /// The weights of tenants that have another than 1.
    pub weights: BTreeMap<String, u64>,
    /// By arrival, with the time of their arrival in steps.
    waiting: Vec<(u64, Asked)>,
    running: Vec<Running>,
    /// By first request.
    accounts: Vec<Account>,
    passed_over: BTreeMap<Rank, u32>,
    /// Who was served last in each rank.
    served_last: BTreeMap<Rank, usize>,
}

impl Reference {
    /// A request comes. Its tenant is lifted if none of its requests waits.
    pub fn arrive(&mut self, asked: &Asked) {
        let (rank, at) = (rank(asked), self.account(asked));
        if self.waiting.iter().any(|(_, one)| self::rank(one) == rank && one.tenant == asked.tenant) {
            return;
        }
        let waiting = self.waiting.iter().filter(|(_, one)| self::rank(one) == rank);
        let least =
            waiting.filter_map(|(_, one)| self.find(one)).min_by_key(|at| (self.accounts[*at].counter, *at));
        let lift = least.or(self.served_last.get(&rank).copied()).map_or(0, |at| self.lift(at));
        self.accounts[at].counter = self.accounts[at].counter.max(lift);
    }

    /// Where a request may go now.
    pub fn free(&self, asked: &Asked) -> Vec<String> {
        let free = self.places.iter().filter(|(name, place)| place.takes(asked, &self.running, name));
        free.map(|(name, _)| name.clone()).collect()
    }

    /// It waits.
    pub fn wait(&mut self, request: u64, asked: Asked) {
        self.waiting.push((request, asked));
    }

    /// Who has to give its place to a live one that has to wait: the newest of the batch lane that has no content, where
    /// that one could go.
    pub fn victim(&self, asked: &Asked) -> Option<u64> {
        let fits = |one: &&Running| self.places.get(&one.place).is_some_and(|place| place.fits(asked));
        let able = |one: &&Running| one.asked.lane == Lane::Batch && !one.content && one.asked.gives_way > 0;
        let mut newest = self.running.iter().rev().filter(able).filter(fits);
        newest.next().filter(|_| asked.lane == Lane::Live).map(|one| one.request)
    }

    /// One that was sent has content.
    pub fn content(&mut self, request: u64) {
        self.running.iter_mut().filter(|one| one.request == request).for_each(|one| one.content = true);
    }

    /// One that was sent gives its place away: what it is when it comes again.
    pub fn give_way(&mut self, request: u64) -> Option<Asked> {
        let one = self.running.iter().find(|one| one.request == request)?;
        let asked = Asked { gives_way: one.asked.gives_way.saturating_sub(1), ..one.asked.clone() };
        self.end(request, Paid::Nothing);
        Some(asked)
    }

    /// It waits no more, without a slot.
    pub fn leave(&mut self, request: u64) {
        self.waiting.retain(|(one, _)| *one != request);
    }

    /// Who is next, and where it may go.
    pub fn next(&self) -> Option<(u64, Vec<String>)> {
        let mut able: Vec<&(u64, Asked)> =
            self.waiting.iter().filter(|(_, asked)| !self.free(asked).is_empty()).collect();
        let passed_over = |rank: &Rank| self.passed_over.get(rank).copied().unwrap_or(0);
        let mut ranks: Vec<Rank> = able.iter().map(|(_, asked)| rank(asked)).collect();
        ranks.sort_by_key(|rank| {
            let owed = passed_over(rank);
            let owed = if owed >= FLOOR_ONE_IN - 1 { owed } else { 0 };
            (std::cmp::Reverse(owed), *rank)
        });
        let rank = *ranks.first()?;
        able.retain(|(_, asked)| self::rank(asked) == rank);
        able.sort_by_key(|(request, asked)| {
            let account = self.find(asked).unwrap_or(usize::MAX);
            let counter = self.accounts.get(account).map_or(0, |account| account.counter);
            (counter, account, asked.deadline, *request)
        });
        able.first().map(|(request, asked)| (*request, self.free(asked)))
    }

    /// The next got a slot there.
    pub fn grant(&mut self, request: u64, place: &str) {
        let Some(at) = self.waiting.iter().position(|(one, _)| *one == request) else { return };
        let (_, asked) = self.waiting.remove(at);
        let served = rank(&asked);
        self.send(request, asked, place);
        for lane in [Lane::Live, Lane::Batch] {
            for class in Class::ALL {
                let waits = self.waiting.iter().any(|(_, one)| rank(one) == (lane, class));
                let passed_over = self.passed_over.entry((lane, class)).or_default();
                *passed_over = match (waits, (lane, class) == served) {
                    (false, _) => 0,
                    (true, true) => passed_over.saturating_sub(FLOOR_ONE_IN - 1),
                    (true, false) => (*passed_over + 1).min(OWED_MAX),
                };
            }
        }
    }

    /// A request is sent, whether it waited or not.
    pub fn send(&mut self, request: u64, asked: Asked, place: &str) {
        let (at, weight) = (self.account(&asked), self.weight(&asked));
        let account = &mut self.accounts[at];
        let output = 2 * asked.tokens_out_max.min(account.output_usual as u64);
        let charged = asked.tokens_in + output;
        let charged = charged * SCALE / weight;
        account.counter += charged;
        self.served_last.insert(rank(&asked), at);
        let output = output * SCALE / weight;
        let content = false;
        self.running.push(Running { request, asked, place: place.to_owned(), content, charged, output });
    }

    /// One that was sent ended.
    pub fn end(&mut self, request: u64, paid: Paid) {
        let Some(at) = self.running.iter().position(|one| one.request == request) else { return };
        let one = self.running.remove(at);
        let (at, weight) = (self.account(&one.asked), self.weight(&one.asked));
        let account = &mut self.accounts[at];
        let cost = match paid {
            Paid::AsCharged => return,
            Paid::Nothing => 0,
            Paid::Used(tokens_in, tokens_out) => {
                account.output_usual += (tokens_out as f64 - account.output_usual) * 0.1;
                tokens_in + 2 * tokens_out
            }
        };
        account.counter = (account.counter + cost * SCALE / weight).saturating_sub(one.charged);
    }

    /// What an account lifts others to: its counter without the output that is under way.
    fn lift(&self, at: usize) -> u64 {
        let account = &self.accounts[at];
        let own = |one: &&Running| rank(&one.asked) == account.rank && one.asked.tenant == account.tenant;
        let output: u64 = self.running.iter().filter(own).map(|one| one.output).sum();
        account.counter.saturating_sub(output)
    }

    /// How many wait, and how many run.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    fn weight(&self, asked: &Asked) -> u64 {
        self.weights.get(&asked.tenant).copied().unwrap_or(1)
    }

    fn find(&self, asked: &Asked) -> Option<usize> {
        self.accounts.iter().position(|one| one.rank == rank(asked) && one.tenant == asked.tenant)
    }

    fn account(&mut self, asked: &Asked) -> usize {
        self.find(asked).unwrap_or_else(|| {
            self.accounts.push(Account {
                rank: rank(asked),
                tenant: asked.tenant.clone(),
                counter: 0,
                output_usual: OUTPUT_FIRST,
            });
            self.accounts.len() - 1
        })
    }
}

fn rank(asked: &Asked) -> Rank {
    (asked.lane, asked.class)
}
