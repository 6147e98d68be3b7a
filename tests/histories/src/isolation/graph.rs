//! Who must come before whom, and cycles in that.

use std::collections::VecDeque;

use crate::history::{History, Isolation};

/// Why one comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    /// The other wrote the next version.
    Ww,
    /// The other read what it wrote.
    Wr,
    /// The other wrote the version after the one it read.
    Rw,
    /// Earlier in the same session.
    Process,
    /// Answered before the other, which must see it, began.
    Fresh,
    /// Answered before the other, which writes, began: the order of commits, not of snapshots.
    Bound,
}

/// Vertices are the operations of the history, and behind them one for each moment at which an
/// operation ended, in their order: real time costs an edge an operation, not one a pair.
pub(super) struct Graph {
    edges: Vec<Vec<(usize, Edge)>>,
    /// How many vertices are operations.
    operations: usize,
    /// Whose rw edges bind it when it commits.
    serializable: Vec<bool>,
}

/// Operations of a cycle, each with the edge to the next one.
pub(super) struct Cycle {
    pub(super) steps: Vec<(usize, Edge)>,
}

impl Edge {
    pub(super) fn is_of_time(self) -> bool {
        matches!(self, Edge::Process | Edge::Fresh | Edge::Bound)
    }
}

impl Cycle {
    pub(super) fn count(&self, edge: Edge) -> usize {
        self.steps.iter().filter(|(_, is)| *is == edge).count()
    }
}

impl Graph {
    pub(super) fn new(
        history: &History,
        committed: &[bool],
        dependencies: Vec<(usize, usize, Edge)>,
    ) -> Self {
        let operations = history.operations.len();
        let serializable = history.operations.iter();
        let serializable = serializable.map(|o| o.isolation == Isolation::Serializable).collect();
        let mut graph = Self { edges: vec![Vec::new(); operations], operations, serializable };
        for (from, to, edge) in dependencies {
            if from != to {
                graph.edges[from].push((to, edge));
            }
        }
        for places in history.sessions().values() {
            let places: Vec<_> = places.iter().filter(|place| committed[**place]).collect();
            for pair in places.windows(2) {
                graph.edges[*pair[0]].push((*pair[1], Edge::Process));
            }
        }
        graph.add_time(history, committed);
        for edges in &mut graph.edges {
            edges.sort_unstable();
            edges.dedup();
        }
        graph
    }

    fn add_time(&mut self, history: &History, committed: &[bool]) {
        let all = history.operations.iter().enumerate();
        let known = all.filter(|(place, _)| committed[*place]);
        let mut ends: Vec<u64> = known.clone().filter_map(|(_, operation)| operation.end).collect();
        ends.sort_unstable();
        ends.dedup();
        self.edges.resize(self.operations + ends.len(), Vec::new());
        for moment in 1..ends.len() {
            let vertex = self.operations + moment;
            self.edges[vertex - 1].push((vertex, Edge::Fresh));
        }
        for (place, operation) in known {
            if let Some(end) = operation.end {
                let moment = ends.partition_point(|moment| *moment < end);
                self.edges[place].push((self.operations + moment, Edge::Fresh));
            }
            let before = ends.partition_point(|moment| *moment < operation.begin);
            if before == 0 || !(operation.fresh || operation.writes()) {
                continue;
            }
            let edge = if operation.fresh { Edge::Fresh } else { Edge::Bound };
            self.edges[self.operations + before - 1].push((place, edge));
        }
    }

    pub(super) fn count(&self, edge: Edge) -> usize {
        self.edges.iter().flatten().filter(|(_, is)| *is == edge).count()
    }

    /// A cycle of such edges only.
    pub(super) fn cycle(&self, allowed: impl Fn(Edge) -> bool) -> Option<Cycle> {
        let next = |from: usize| {
            let edges = self.edges[from].iter().copied();
            edges.filter(|(_, edge)| allowed(*edge)).collect::<Vec<_>>()
        };
        let on_cycle = strongly_connected(self.edges.len(), &next);
        self.shortest(&on_cycle, &next)
    }

    /// A cycle that binds serializable transactions; one with a single rw edge if there is one.
    pub(super) fn serializable_cycle(&self) -> Option<Cycle> {
        let binds = |from: usize, edge: Edge| edge != Edge::Rw || self.serializable[from];
        let next = |from: usize| {
            let edges = self.edges[from].iter().copied();
            edges.filter(|(_, edge)| binds(from, *edge)).collect::<Vec<_>>()
        };
        let component = strongly_connected(self.edges.len(), &next);
        component.iter().flatten().next()?;
        let inner = |from: usize| {
            let mut edges = next(from);
            edges.retain(|(_, edge)| *edge != Edge::Rw);
            edges
        };
        for from in 0..self.operations {
            let rw = next(from).into_iter().filter(|(to, edge)| {
                *edge == Edge::Rw && component[from].is_some() && component[from] == component[*to]
            });
            for (to, edge) in rw {
                if let Some(mut back) = path(self.edges.len(), to, from, &inner) {
                    back.insert(0, (from, edge));
                    return Some(self.without_moments(back));
                }
            }
        }
        self.shortest(&component, &next)
    }

    /// A cycle in which no rw edge follows another. Each vertex is there twice: reached by an rw
    /// edge, from where no other goes out, or by another edge.
    pub(super) fn nonadjacent_cycle(&self) -> Option<Cycle> {
        let count = self.edges.len();
        let next = |from: usize| {
            let (vertex, by_rw) = (from % count, from >= count);
            let mut edges = Vec::new();
            for (to, edge) in &self.edges[vertex] {
                match edge {
                    Edge::Bound => {}
                    Edge::Rw if by_rw => {}
                    Edge::Rw => edges.push((to + count, *edge)),
                    _ => edges.push((*to, *edge)),
                }
            }
            edges
        };
        let component = strongly_connected(2 * count, &next);
        let start = (0..2 * count).find(|vertex| component[*vertex].is_some())?;
        let inside = |from: usize| {
            let mut edges = next(from);
            edges.retain(|(to, _)| component[*to] == component[start]);
            edges
        };
        let mut steps = path(2 * count, start, start, &inside)?;
        steps.iter_mut().for_each(|(vertex, _)| *vertex %= count);
        Some(self.without_moments(steps))
    }

    /// The shortest cycle through the first vertex that is on one.
    fn shortest(
        &self,
        component: &[Option<usize>],
        next: &impl Fn(usize) -> Vec<(usize, Edge)>,
    ) -> Option<Cycle> {
        let start = component.iter().position(Option::is_some)?;
        let inside = |from: usize| {
            let mut edges = next(from);
            edges.retain(|(to, _)| component[*to] == component[start]);
            edges
        };
        let steps = path(self.edges.len(), start, start, &inside)?;
        Some(self.without_moments(steps))
    }

    /// Leaves out the vertices that are moments.
    fn without_moments(&self, mut steps: Vec<(usize, Edge)>) -> Cycle {
        let first = steps.iter().position(|(vertex, _)| *vertex < self.operations);
        steps.rotate_left(first.expect("time alone does not go in circles"));
        let mut kept: Vec<(usize, Edge)> = Vec::new();
        for (vertex, edge) in steps {
            match kept.last_mut() {
                Some(last) if vertex >= self.operations => last.1 = edge,
                _ => kept.push((vertex, edge)),
            }
        }
        Cycle { steps: kept }
    }
}

/// The shortest way from one vertex to another, at least one edge long.
fn path(
    count: usize,
    from: usize,
    to: usize,
    next: &impl Fn(usize) -> Vec<(usize, Edge)>,
) -> Option<Vec<(usize, Edge)>> {
    let mut came: Vec<Option<(usize, Edge)>> = vec![None; count];
    let mut queue = VecDeque::from([from]);
    while let Some(vertex) = queue.pop_front() {
        for (neighbour, edge) in next(vertex) {
            if came[neighbour].is_some() {
                continue;
            }
            came[neighbour] = Some((vertex, edge));
            if neighbour == to {
                return Some(walk_back(&came, from, to));
            }
            queue.push_back(neighbour);
        }
    }
    None
}

fn walk_back(came: &[Option<(usize, Edge)>], from: usize, to: usize) -> Vec<(usize, Edge)> {
    let mut steps = Vec::new();
    let mut at = to;
    loop {
        let (before, edge) = came[at].expect("the way back leads to the start");
        steps.push((before, edge));
        at = before;
        if at == from {
            steps.reverse();
            return steps;
        }
    }
}

/// For each vertex that is on a cycle the number of its component (Tarjan 1972, without recursion).
fn strongly_connected(
    count: usize,
    next: &impl Fn(usize) -> Vec<(usize, Edge)>,
) -> Vec<Option<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut number = vec![UNSEEN; count];
    let mut low = vec![0; count];
    let mut on_stack = vec![false; count];
    let mut component = vec![None; count];
    let (mut stack, mut numbers, mut components) = (Vec::new(), 0, 0);
    for root in 0..count {
        if number[root] != UNSEEN {
            continue;
        }
        let mut work = vec![(root, next(root), 0)];
        while let Some((vertex, edges, at)) = work.last_mut() {
            let vertex = *vertex;
            if *at == 0 {
                number[vertex] = numbers;
                low[vertex] = numbers;
                numbers += 1;
                stack.push(vertex);
                on_stack[vertex] = true;
            }
            if let Some((neighbour, _)) = edges.get(*at).copied() {
                *at += 1;
                if number[neighbour] == UNSEEN {
                    work.push((neighbour, next(neighbour), 0));
                } else if on_stack[neighbour] {
                    low[vertex] = low[vertex].min(number[neighbour]);
                }
                continue;
            }
            work.pop();
            if let Some((parent, _, _)) = work.last() {
                low[*parent] = low[*parent].min(low[vertex]);
            }
            if low[vertex] != number[vertex] {
                continue;
            }
            let start = stack.iter().rposition(|on| *on == vertex).expect("pushed above");
            let alone = stack.len() - start == 1 && !next(vertex).iter().any(|e| e.0 == vertex);
            for member in stack.drain(start..) {
                on_stack[member] = false;
                component[member] = (!alone).then_some(components);
            }
            components += 1;
        }
    }
    component
}
