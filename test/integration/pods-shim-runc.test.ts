import { describePods } from '../support/pod-contract/describe.ts';
import { SHIM_RUNC } from '../support/pod-contract/handler.ts';

describePods(SHIM_RUNC);
