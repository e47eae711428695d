//! Starting and ending transactions.

use super::{Answer, Engine, Request, one_string};
use crate::journal::record::Record;
use crate::transaction::Transaction;
use oxen_abi::Errno;

impl Engine {
    pub(super) fn transaction_start(&mut self, request: &Request<'_>) -> Answer {
        if request.head.tx_id != 0 {
            return Err(Errno::EBUSY);
        }
        let client = self.clients.get_mut(request.client).ok_or(Errno::EINVAL)?;
        let count = client.transactions.len();
        if client.domid != 0 && count >= self.limits.transactions as usize {
            self.over(request, "transactions", count + 1, self.limits.transactions, "transaction_start");
            return Err(Errno::ENOSPC);
        }
        let mut id = client.last_transaction.wrapping_add(1);
        while id == 0 || client.transactions.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        client.last_transaction = id;
        client.transactions.insert(id, Transaction::new(&self.live));
        if client.ring {
            self.journal.put(&Record::TransactionStart { domid: client.domid, id });
        }
        self.answer(request, &[format!("{id}\0").as_bytes()])
    }

    pub(super) fn transaction_end(&mut self, request: &Request<'_>) -> Answer {
        let commit = match one_string(request.payload)? {
            "T" => true,
            "F" => false,
            _ => return Err(Errno::EINVAL),
        };
        let client = self.clients.get_mut(request.client).ok_or(Errno::EINVAL)?;
        let id = request.head.tx_id;
        let transaction = client.transactions.remove(&id).ok_or(Errno::ENOENT)?;
        let (domid, ring) = (client.domid, client.ring);
        if ring {
            self.journal.put(&Record::TransactionEnd { domid, id });
        }
        if commit {
            self.commit(request, transaction, domid)?;
        }
        self.ok(request)
    }

    fn commit(&mut self, request: &Request<'_>, transaction: Transaction, domid: u16) -> Answer {
        let (tree, changes) = transaction.commit(&self.live).ok_or(Errno::EAGAIN)?;
        let owned = tree.owned_by(domid);
        if domid != 0 && owned > self.limits.nodes && owned > self.live.owned_by(domid) {
            self.over(request, "nodes", owned as usize, self.limits.nodes, "transaction_end");
            return Err(Errno::ENOSPC);
        }
        self.live = tree;
        let mut told = std::collections::BTreeSet::new();
        for change in &changes {
            self.journal.put_change(change);
        }
        for change in &changes {
            // Several changes of one node are one to those who watch it, but the end of a subtree is told to those below it.
            let again = !told.insert(change.path().clone());
            if !again || matches!(change, crate::tree::Change::Remove { .. }) {
                self.fire(change);
            }
        }
        Ok(())
    }
}
