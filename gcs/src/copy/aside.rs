//! Connections to PostgreSQL that the daemon's thread holds and must not end: their end is a wait, during which nothing else would be done.

/// What is dropped on another thread.
#[derive(Debug)]
pub struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    pub fn new(held: T) -> Aside<T> {
        Aside(Some(held))
    }

    /// For a thread that may wait.
    pub fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        // Without a runtime the daemon is at its end, and this thread may wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(held));
        }
    }
}
