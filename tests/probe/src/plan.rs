//! How many clients of which kind.

/// The least that has one client of every kind and role.
pub const FEWEST: usize = 11;
/// Clients that share a queue, a channel or a number.
const TOGETHER: usize = 5;

/// How clients are divided.
#[derive(Debug, PartialEq, Eq)]
pub struct Shares {
    /// Each counts alone.
    pub counters: usize,
    /// Each has transactions of its own.
    pub transactions: usize,
    /// Producers and workers of each queue.
    pub queues: Vec<(usize, usize)>,
    /// Publishers and subscribers of each.
    pub news: Vec<(usize, usize)>,
    /// Who contends for each number.
    pub watches: Vec<usize>,
}

impl Shares {
    /// A fifth for each kind, and never less than the roles that it has.
    pub fn of(clients: usize) -> Self {
        let clients = clients.max(FEWEST);
        let fifth = clients / 5;
        let (queues, news, watches) = (fifth.max(4), fifth.max(3), fifth.max(2));
        let left = clients - queues - news - watches;
        let transactions = left / 2;
        Shares {
            counters: left - transactions,
            transactions,
            queues: groups(queues, 2).into_iter().map(roles).collect(),
            news: groups(news, 1).into_iter().map(roles).collect(),
            watches: groups(watches, 1),
        }
    }

    /// Clients of each kind.
    pub fn sizes(&self) -> [usize; 5] {
        let both = |pairs: &[(usize, usize)]| pairs.iter().map(|it| it.0 + it.1).sum();
        let (queues, news) = (both(&self.queues), both(&self.news));
        [self.counters, self.transactions, queues, news, self.watches.iter().sum()]
    }

    /// Those who act by themselves, in their own time.
    pub fn paced(&self) -> usize {
        let first = |pairs: &[(usize, usize)]| pairs.iter().map(|pair| pair.0).sum::<usize>();
        self.counters
            + self.transactions
            + first(&self.queues)
            + first(&self.news)
            + self.watches.iter().sum::<usize>()
    }
}

fn groups(clients: usize, fewest: usize) -> Vec<usize> {
    let count = (clients / TOGETHER).max(fewest);
    (0..count).map(|it| clients / count + usize::from(it < clients % count)).collect()
}

/// Who gives, and who takes; the latter are not fewer.
fn roles(clients: usize) -> (usize, usize) {
    let first = (clients * 2 / 5).max(1);
    (first, clients - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_role_and_every_role_somebody() {
        for clients in FEWEST..500 {
            let shares = Shares::of(clients);
            assert_eq!(shares.sizes().iter().sum::<usize>(), clients, "{shares:?}");
            assert!(shares.counters > 0 && shares.transactions > 0, "{shares:?}");
            assert!(shares.queues.len() >= 2, "both sorts of queue: {shares:?}");
            let pairs = shares.queues.iter().chain(&shares.news);
            assert!(pairs.into_iter().all(|pair| pair.0 > 0 && pair.1 > 0), "{shares:?}");
            assert!(shares.news[0].1 >= 2, "with a pattern, too: {shares:?}");
            assert!(shares.watches[0] >= 2, "somebody to contend with: {shares:?}");
        }
    }
}
