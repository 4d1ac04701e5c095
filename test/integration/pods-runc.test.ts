import { describePods } from '../support/pod-contract/describe.ts';
import { RUNC } from '../support/pod-contract/handler.ts';

describePods(RUNC);
