//! A vector whose places are reused under a new generation, so that an old handle never finds a successor.

/// A handle that a [`Slab`] gives out.
pub(crate) trait Handle: Copy {
    fn new(index: u32, generation: u32) -> Self;
    fn index(self) -> usize;
    fn generation(self) -> u32;
}

/// A vector with stable, generational handles. All operations are O(1).
#[derive(Debug, Clone)]
pub(crate) struct Slab<H, T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    handle: std::marker::PhantomData<fn() -> H>,
}

#[derive(Debug, Clone)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<H: Handle, T> Default for Slab<H, T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), handle: std::marker::PhantomData }
    }
}

impl<H: Handle, T> Slab<H, T> {
    pub(crate) fn insert(&mut self, value: T) -> H {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return H::new(index, place.generation);
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(Place { generation: 0, value: Some(value) });
        H::new(index, 0)
    }

    pub(crate) fn remove(&mut self, handle: H) -> Option<T> {
        let place =
            self.places.get_mut(handle.index()).filter(|place| place.generation == handle.generation())?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(u32::try_from(handle.index()).unwrap_or(u32::MAX));
        Some(value)
    }

    pub(crate) fn get(&self, handle: H) -> Option<&T> {
        self.places
            .get(handle.index())
            .filter(|place| place.generation == handle.generation())?
            .value
            .as_ref()
    }

    pub(crate) fn get_mut(&mut self, handle: H) -> Option<&mut T> {
        self.places
            .get_mut(handle.index())
            .filter(|place| place.generation == handle.generation())?
            .value
            .as_mut()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.value.as_mut())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeploymentId;

    #[test]
    fn an_old_handle_never_finds_a_successor() {
        let mut slab: Slab<DeploymentId, &str> = Slab::default();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b");
        assert_eq!(second.index(), first.index(), "the place is reused");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"b"));
    }
}
